// SPDX-License-Identifier: MIT
//
// The peer of a file that makes a session: what somebody writes who reports by hand, with the same
// libraries. A sign of life from a thread, and one POST an epoch, whose reply is read.

#include <httplib.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

int main(int, char** argv) {
  httplib::SSLClient client("hub.example.org", 443);
  client.set_read_timeout(std::chrono::seconds(30));
  const char* key = std::getenv("ULTRALYTICS_API_KEY");
  const httplib::Headers headers = {{"x-api-key", key ? key : ""}};
  const std::string path = "/api/v1/models/" + std::string(argv[1]);

  std::atomic<bool> done = false;
  std::thread heartbeats([&] {
    while (!done) {
      client.Post((path + "/heartbeat").c_str(), headers, "{}", "application/json");
      std::this_thread::sleep_for(std::chrono::seconds(1));
    }
  });
  for (int epoch = 0; epoch < 100; ++epoch) {
    const nlohmann::json metrics = {{"epoch", epoch}, {"train/loss", 1.0 / (epoch + 1)}};
    const auto reply = client.Post(path.c_str(), headers, metrics.dump(), "application/json");
    if (!reply) continue;
    const auto said = nlohmann::json::parse(reply->body, nullptr, false);
    if (said.is_object() && said.contains("message")) std::cerr << said["message"] << '\n';
  }
  done = true;
  heartbeats.join();
}

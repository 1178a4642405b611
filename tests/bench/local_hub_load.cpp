// SPDX-License-Identifier: MIT
//
// local_hub_load heartbeats|metrics URL KEY AGENTS SECONDS
// local_hub_load uploads URL KEY COUNT FILE
//
// What a running local_hub can take: agents that each have a model and a kept-alive connection and
// send a request as soon as the last one is answered, or sessions that upload a file all at once.
// What was measured goes to stdout as one JSON object.

#include "../../hub_session.hpp"

#include <cstdio>
#include <future>

namespace {

using clock_type = std::chrono::steady_clock;

// Where many connect at once, httplib's short queue of connections lets some of them down. A session
// would try again as well.
hub::reply send(hub::httplib_transport& transport, const hub::request& what) {
  constexpr int tries = 10;
  hub::reply answer = transport.send(what);
  for (int i = 1; i < tries && answer.failure; ++i) answer = transport.send(what);
  if (answer.failure) throw std::runtime_error(answer.failure->message);
  if (answer.status != 200)
    throw std::runtime_error("local_hub answered " + std::to_string(answer.status));
  return answer;
}

// Who reports from now on about a model that was made for it.
hub::hub_v1_wire::caller make_model(const std::string& url, const std::string& key) {
  hub::hub_v1_wire::caller who{.api_root = url, .api_key = key};
  hub::httplib_transport transport;
  const hub::reply answer = send(transport, hub::hub_v1_wire::create_model_request(
                                                who, {.name = "load", .dataset = "coco8.yaml"}));
  who.model_id = hub::hub_v1_wire::parse_created(answer.body).value();
  return who;
}

// Runs one function per number at the same time, and throws the first exception of any.
void all_at_once(int count, const std::function<void(int)>& work) {
  std::vector<std::future<void>> running;
  running.reserve(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) running.push_back(std::async(std::launch::async, work, i));
  for (std::future<void>& each : running) each.get();
}

hub::request metrics_of(const hub::hub_v1_wire::caller& who, int epoch) {
  const double value = 1.0 / (epoch + 1);
  const auto record = std::make_shared<const hub::epoch_record>(
      std::vector<std::pair<std::string, double>>{{"train/box_loss", value},
                                                  {"train/cls_loss", value / 2},
                                                  {"val/box_loss", value * 2},
                                                  {"metrics/mAP50-95(B)", 1 - value}});
  const std::vector<hub::queued_epoch> batch = {{epoch, record}};
  return hub::hub_v1_wire::metrics_request(who, batch);
}

void send_requests(const std::string& url, const std::string& key, int agents,
                   std::chrono::seconds how_long, bool heartbeats) {
  std::vector<hub::hub_v1_wire::caller> callers;
  for (int i = 0; i < agents; ++i) callers.push_back(make_model(url, key));
  std::atomic<std::uint64_t> answered = 0;
  const auto until = clock_type::now() + how_long;
  all_at_once(agents, [&](int i) {
    const hub::hub_v1_wire::caller& who = callers[static_cast<std::size_t>(i)];
    const std::string agent = "agent-" + std::to_string(i);
    hub::httplib_transport transport;
    for (int epoch = 0; clock_type::now() < until; ++epoch) {
      send(transport, heartbeats ? hub::hub_v1_wire::heartbeat_request(who, "load", agent)
                                 : metrics_of(who, epoch));
      ++answered;
    }
  });
  std::printf("{\"per_second\": %.0f}\n",
              static_cast<double>(answered) / static_cast<double>(how_long.count()));
}

void send_files(const std::string& url, const std::string& key, int count,
                const std::filesystem::path& file) {
  const auto began = clock_type::now();
  all_at_once(count, [&](int) {
    hub::session_options options;
    options.endpoints = {.api = url, .web = url};
    options.credentials = {.api_key = key, .prompt = false, .settings_file = "no-settings.json"};
    options.rank = 0;
    options.log = [](hub::log_level, std::string_view) {};
    options.progress = [](const hub::transfer_progress&) {};
    options.handle_signals = false;
    hub::training_session session{make_model(url, key).model_id, options};
    if (!session.on_train_end(0, file, 0.5).complete())
      throw std::runtime_error("an upload did not arrive");
  });
  std::printf("{\"seconds\": %.2f}\n",
              std::chrono::duration<double>(clock_type::now() - began).count());
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> given(argv + 1, argv + argc);
  try {
    if (given.size() != 5)
      throw std::runtime_error("see the top of tests/bench/local_hub_load.cpp");
    const int count = std::stoi(given[3]);
    if (given[0] == "uploads")
      send_files(given[1], given[2], count, given[4]);
    else
      send_requests(given[1], given[2], count, std::chrono::seconds(std::stoi(given[4])),
                    given[0] == "heartbeats");
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "local_hub_load: %s\n", problem.what());
    return 1;
  }
}

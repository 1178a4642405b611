// SPDX-License-Identifier: MIT
//
// A running local_hub as its tests use it: what the page and trainings ask of it, over real sockets.

#pragma once

#include "../../hub_session.hpp"
#include "catch.hpp"
#include "programs.hpp"

#include <cstdint>
#include <string>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

namespace hub_test {

// A hub without any key of its own, as a user starts it.
inline running_hub start_plain(const home& at, const words& flags = {}) {
  running_hub hub;
  words arguments = {"--port", "0"};
  arguments.insert(arguments.end(), flags.begin(), flags.end());
  hub.program = at.launch_hub(arguments);
  const std::string lead = "local_hub: listening on ";
  hub.url = hub.program->wait_for_line(lead).substr(lead.size());
  return hub;
}

struct answer {
  int status;
  std::string body;
  httplib::Headers headers;
  json value() const { return json::parse(body); }
  std::string header(const char* name) const {
    const auto found = headers.find(name);
    return found == headers.end() ? "" : found->second;
  }
};

inline answer send(const running_hub& hub, const char* method, const std::string& path,
                   const std::string& body = "", httplib::Headers headers = {}) {
  httplib::Client client("127.0.0.1", hub.port());
  client.set_decompress(false);
  httplib::Request what;
  what.method = method;
  what.path = path;
  what.body = body;
  what.headers = std::move(headers);
  if (!body.empty()) what.headers.emplace("Content-Type", "application/json");
  const auto got = client.send(what);
  REQUIRE(got);
  return {got->status, got->body, got->headers};
}

struct made_model {
  std::string id;
  std::string key;
};

inline made_model make(const running_hub& hub, const std::string& name, int epochs = 10) {
  const answer made =
      send(hub, "POST", "/api/models", json{{"name", name}, {"epochs", epochs}}.dump());
  INFO(made.body);
  REQUIRE(made.status == 200);
  return {made.value().at("id"), made.value().at("key")};
}

inline answer report(const running_hub& hub, const made_model& model, int epoch,
                     const json& values) {
  const json body = {{"type", "metrics"}, {"metrics", {{std::to_string(epoch), values.dump()}}}};
  return send(hub, "POST", "/v1/models/" + model.id, body.dump(), {{"x-api-key", model.key}});
}

inline answer upload(const running_hub& hub, const made_model& model, int epoch,
                     const std::string& content) {
  const std::string field = "--edge\r\nContent-Disposition: form-data; name=\"";
  std::string form = field + "epoch\"\r\n\r\n" + std::to_string(epoch) + "\r\n" + field +
                     "type\"\r\n\r\nepoch\r\n" + field + "isBest\"\r\n\r\nTrue\r\n" + field +
                     "last.pt\"; filename=\"last.pt\"\r\n\r\n" + content + "\r\n--edge--\r\n";
  httplib::Client client("127.0.0.1", hub.port());
  const auto got =
      client.Post(("/v1/models/" + model.id + "/upload").c_str(), {{"x-api-key", model.key}}, form,
                  "multipart/form-data; boundary=edge");
  REQUIRE(got);
  return {got->status, got->body, got->headers};
}

inline int connect_to(const running_hub& hub) {
  const int connection = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(hub.port()));
  REQUIRE(::connect(connection, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  return connection;
}

}  // namespace hub_test

// SPDX-License-Identifier: MIT
//
// Where a server can leave its client waiting for ever.

#pragma once

#include <string>
#include <vector>

#include "raw_server.hpp"

namespace hub_test {

// A place in an exchange where a server can leave its client waiting for ever. The script marks
// when it is there.
struct stall {
  const char* name;
  const char* scheme;
  bool tls;      // the server answers the TLS handshake
  bool uploads;  // the request has a long body
  raw_server::script script;
};

inline std::vector<stall> all_stalls() {
  const auto after_request = [](std::string first, std::string dripped) {
    return [first, dripped](raw_server::connection& client) {
      client.read_request();
      client.send(first);
      client.mark();
      if (dripped.empty()) client.hang();
      client.drip(dripped);
    };
  };
  const auto unread = [](raw_server::connection& client) {
    client.read_head();
    client.mark();
    client.ignore();
  };
  const std::string head = "HTTP/1.1 200 OK\r\n";
  std::vector<stall> out = {
      {"in the TLS handshake", "https", false, false, [](raw_server::connection& client) {
         client.mark();
         client.hang();
       }}};
  for (const bool tls : {false, true}) {
    const char* scheme = tls ? "https" : "http";
    out.push_back({"before the status line", scheme, tls, false, after_request("", "")});
    out.push_back(
        {"in a dripping status line", scheme, tls, false, after_request("HTTP/1.1 200 O", "O")});
    out.push_back({"in a dripping head", scheme, tls, false, after_request(head, "x-drip: y\r\n")});
    out.push_back({"in interim replies", scheme, tls, false,
                   after_request("", "HTTP/1.1 100 Continue\r\n\r\n")});
    out.push_back({"in a body", scheme, tls, false,
                   after_request(head + "Content-Length: 100000\r\n\r\nx", "")});
    out.push_back({"in a dripping body", scheme, tls, false,
                   after_request(head + "Content-Length: 100000\r\n\r\n", "x")});
    out.push_back({"in a dripping body without length", scheme, tls, false,
                   after_request(head + "\r\n", "x")});
    out.push_back({"in dripping chunks", scheme, tls, false,
                   after_request(head + "Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n")});
    out.push_back({"in an upload that nobody reads", scheme, tls, true, unread});
  }
  return out;
}

}  // namespace hub_test

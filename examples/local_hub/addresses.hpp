// SPDX-License-Identifier: MIT
//
// How clients reach this HUB, which may lie below a path and behind proxies: what the addresses that it
// hands out begin with, and who asks.
//
// Anybody can write Forwarded or X-Forwarded-For into a request, so both are read only where they come
// from a proxy that the owner named. A proxy writes one kind and passes the other on as it came: where
// both are there, one of them is the client's own, and neither counts.

#pragma once

#include "http/message.hpp"
#include "http/sockets.hpp"
#include "hub_session.hpp"
#include "records.hpp"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace local_hub {

struct address_options {
  std::string base_path = {};   // such as "/hub", with which every request begins
  std::string public_url = {};  // how clients reach it; "" where their requests say so
  std::vector<std::string> trusted_proxies = {};  // as http::numeric_address() has them
};

// "/hub" for "/hub/"; nothing for what nothing can lie below.
inline std::optional<std::string> parse_base_path(std::string_view text) {
  const auto below = hub::text::parse_url("http://localhost" + std::string(text));
  if (!text.starts_with('/') || !below || below->path.empty()) return std::nullopt;
  return below->path;
}

class addresses {
 public:
  // `tls` is whether this HUB itself speaks it.
  addresses(address_options options, bool tls) : options_(std::move(options)), tls_(tls) {}

  // Sets who asks, how that reaches this HUB, and the target as it is without the base path. Returns
  // the answer where the target does not lie below that.
  std::optional<hub::testing::server_reply> settle(http::request& from) const {
    const hop client = client_hop(from);
    if (const auto address = address_of(client.asked_by)) from.remote_address = *address;
    from.root = root_for(from, client);
    return take_off_base_path(from);
  }

 private:
  // What one proxy says of a request that it passed on, as far as it does.
  struct hop {
    std::string asked_by = {};
    std::string scheme = {};
    std::string host = {};
    std::string prefix = {};  // that it took off the path
  };
  using list = std::vector<std::string>;

  bool is_trusted(const std::string& address) const {
    const list& all = options_.trusted_proxies;
    return std::find(all.begin(), all.end(), address) != all.end();
  }

  // Of the farthest proxy that is trusted: what stands before it was written by somebody unknown.
  hop client_hop(const http::request& from) const {
    if (!is_trusted(from.remote_address)) return {};
    hop farthest;
    for (hop& each : hops_of(from)) {
      farthest = std::move(each);
      const auto address = address_of(farthest.asked_by);
      if (!address || !is_trusted(*address)) break;
    }
    return farthest;
  }

  // The nearest proxy's first.
  static std::vector<hop> hops_of(const http::request& from) {
    std::vector<hop> hops;
    for (const std::string& each : list_of(from, "forwarded"))
      hops.push_back({parameter(each, "for"), parameter(each, "proto"), parameter(each, "host")});
    const list clients = list_of(from, "x-forwarded-for");
    const list schemes = list_of(from, "x-forwarded-proto");
    const list hosts = list_of(from, "x-forwarded-host");
    const list prefixes = list_of(from, "x-forwarded-prefix");
    if (clients.empty() && schemes.empty() && hosts.empty() && prefixes.empty()) return hops;
    if (!hops.empty()) return {};
    // Some proxies add to the list of clients and replace the others, which then have one value for all.
    const auto nth = [](const list& all, std::size_t n) {
      return all.empty() ? std::string() : all[std::min(n, all.size() - 1)];
    };
    for (std::size_t n = 0; n < std::max<std::size_t>(clients.size(), 1); ++n)
      hops.push_back({nth(clients, n), nth(schemes, n), nth(hosts, n), nth(prefixes, n)});
    return hops;
  }

  // The parts of a list, the last one first. A comma ends a part within quotes as well: else a client
  // could leave a quote open, and what the proxy added would be part of it.
  static list list_of(const http::request& from, std::string_view name) {
    list parts;
    for (const auto& [each, value] : from.fields) {
      if (each != name) continue;
      for (std::string_view rest = value;;) {
        const std::size_t comma = rest.find(',');
        parts.emplace_back(http::trimmed(rest.substr(0, comma)));
        if (comma == rest.npos) break;
        rest.remove_prefix(comma + 1);
      }
    }
    std::reverse(parts.begin(), parts.end());
    return parts;
  }

  // Of a part such as `for="[::1]:80";proto=https`; "" where it has none of this name (RFC 7239).
  static std::string parameter(std::string_view part, std::string_view name) {
    while (!part.empty()) {
      const std::size_t end = std::min(part.find(';'), part.size());
      const std::string_view pair = part.substr(0, end);
      part.remove_prefix(std::min(end + 1, part.size()));
      const std::size_t equals = pair.find('=');
      if (equals == pair.npos || http::lowered(http::trimmed(pair.substr(0, equals))) != name)
        continue;
      std::string_view value = http::trimmed(pair.substr(equals + 1));
      if (value.size() > 1 && value.front() == '"' && value.back() == '"')
        value = value.substr(1, value.size() - 2);
      return std::string(value);
    }
    return "";
  }

  // Of "192.0.2.1", "192.0.2.1:80", "2001:db8::1" or "[2001:db8::1]:80"; nothing for other names.
  static std::optional<std::string> address_of(const std::string& text) {
    if (auto address = http::numeric_address(text)) return address;
    const auto with_port = hub::text::parse_url("http://" + text);
    return with_port ? http::numeric_address(with_port->host) : std::nullopt;
  }

  // "" where nobody says it in a way that makes a URL.
  std::string root_for(const http::request& from, const hop& client) const {
    if (!options_.public_url.empty()) return options_.public_url;
    std::string scheme = http::lowered(client.scheme);
    if (scheme != "http" && scheme != "https") scheme = tls_ ? "https" : "http";
    const std::string host = client.host.empty() ? from.field("host") : client.host;
    const auto root = hub::text::parse_url(scheme + "://" + http::lowered(host));
    if (!root || !root->path.empty()) return "";
    return root->text() + parse_base_path(client.prefix).value_or("") + options_.base_path;
  }

  std::optional<hub::testing::server_reply> take_off_base_path(http::request& from) const {
    const std::string& base = options_.base_path;
    if (base.empty()) return std::nullopt;
    const std::string_view path = from.path();
    if (path == base) {  // the page's relative addresses need the slash
      hub::testing::server_reply to_page = refusal(302, "the page is below this address");
      to_page.location = base.substr(base.rfind('/') + 1) + '/';
      return to_page;
    }
    if (!path.starts_with(base + '/'))
      return refusal(404,
                     "this HUB is below " + base +
                         "/ (--base-path); a proxy that takes this off "
                         "needs --public-url, or X-Forwarded-Prefix and --trusted-proxy, instead");
    from.target.erase(0, base.size());
    return std::nullopt;
  }

  address_options options_;
  bool tls_;
};

}  // namespace local_hub

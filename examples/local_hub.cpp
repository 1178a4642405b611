// SPDX-License-Identifier: MIT
//
// A HUB to run at home: one program with a page to look at, and a folder with everything that it
// was sent.
//
//     local_hub                             prints the page's address; models are made there
//     local_hub --make-model spirals        prints the new model's id as well
//     local_hub keys make laptop            prints a new key
//
// examples/local_hub/server.hpp speaks HTTP with trainings, page_server.hpp with the page, whose
// sources are in page/; store.hpp decides and keeps, views.hpp shows, keys.hpp knows who may,
// records.hpp and files.hpp write.
//
// Exit status: 0 stopped by SIGINT or SIGTERM, 1 something is in the way, 2 usage.

#define HUB_SESSION_NO_HTTPLIB  // this is a server, and has its own

#include "flags.hpp"
#include "local_hub/addresses.hpp"
#include "local_hub/files.hpp"
#include "local_hub/keys.hpp"
#include "local_hub/runs.hpp"
#include "local_hub/server.hpp"
#include "local_hub/store.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <future>
#include <iostream>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#if LOCAL_HUB_POSIX
#include <sys/resource.h>
#include <sys/stat.h>
#endif

namespace {

using namespace std::chrono_literals;

constexpr char usage[] =
    R"(usage: local_hub [flags]
       local_hub keys [list | make NAME | revoke NAME] [--data DIR]

  --host HOST           where to listen (default 127.0.0.1); elsewhere only with an explicit key
  --port PORT           the port (default 8100); 0 picks a free one
  --data DIR            where everything is kept (default local_hub_data)
  --api-key KEY         a key to accept, beside those that `local_hub keys` made
  --cert FILE           speak https with this certificate (PEM) ...
  --key FILE            ... and its private key
  --make-model NAME     make a model and print its id
  --epochs N            how long it is to be trained (default 100)
  --upload-bytes-max N  the largest file to accept (default 17179869184, which is 16 GiB)
  --free-bytes-min N    take no upload that leaves less of the disk (default 67108864)
  --silence SECONDS     without a heartbeat for so long, a training counts as disconnected
                        (default 900)
  --page-needs-key      the page asks for a key on a loopback address too: for machines that others
                        use as well, and behind a proxy
  --base-path PATH      everything is below this path, such as /hub, and a proxy passes it on
  --public-url URL      how clients reach this HUB, the path included, where it is behind a proxy
  --trusted-proxy ADDRESS
                        believe the Forwarded or X-Forwarded-* headers of this proxy, as to who asks
                        and how clients reach this HUB; may be repeated
  --quiet               no line for each request
  --help                this text

The key may also stand in LOCAL_HUB_API_KEY, where other users of the machine do not see it. Keys that
are made here are shown once; DIR/keys.json has only their digests.
)";

struct settings {
  std::string host = "127.0.0.1";
  int port = 8100;
  std::filesystem::path data = "local_hub_data";
  std::string api_key;  // "" where none was given
  std::optional<std::string> new_model;
  std::optional<int> epochs;
  local_hub::store_options store;
  local_hub::server_options server;
};

bool is_loopback(std::string_view host) {
  const bool dotted = host.find_first_not_of("0123456789.") == host.npos;
  return host == "localhost" || host == "::1" || (dotted && host.starts_with("127."));
}

// By which flag others than this machine's can reach it; "" where they cannot.
std::string way_for_others(const settings& wanted) {
  const local_hub::address_options& at = wanted.server.reached_at;
  if (!is_loopback(wanted.host)) return "--host: " + wanted.host;
  if (!at.public_url.empty() && !is_loopback(hub::text::parse_url(at.public_url)->host))
    return "--public-url: " + at.public_url;
  if (!at.trusted_proxies.empty()) return "--trusted-proxy: what is behind a proxy";
  return "";
}

constexpr std::size_t api_key_bytes_min = 20;

std::string given_key(const examples::flags& flags) {
  const char* from_environment = std::getenv("LOCAL_HUB_API_KEY");
  const std::string given =
      flags.text("--api-key").value_or(from_environment ? from_environment : "");
  std::string key(hub::text::trimmed(given));  // the line's end of the file that it came from
  if (flags.has("--api-key") && key.empty()) throw examples::usage_error("--api-key: it is empty");
  if (!hub::text::all_of(key, hub::text::is_visible))
    throw examples::usage_error("--api-key: no header can carry blanks or bytes beyond ASCII");
  if (!key.empty() && key.size() < api_key_bytes_min)
    throw examples::usage_error("--api-key: " + std::to_string(api_key_bytes_min) +
                                " characters at least, so that nobody guesses it; "
                                "`local_hub keys make NAME` makes one");
  return key;
}

local_hub::address_options read_addresses(const examples::flags& flags) {
  local_hub::address_options at;
  if (const auto given = flags.text("--base-path")) {
    const auto path = local_hub::parse_base_path(*given);
    if (!path)
      throw examples::usage_error("--base-path: \"" + *given + "\" is no path such as /hub");
    at.base_path = *path;
  }
  if (const auto given = flags.text("--public-url")) {
    const auto url = hub::text::parse_url(*given);
    if (!url) throw examples::usage_error("--public-url: " + url.error().message);
    at.public_url = url->text();
  }
  for (const std::string& each : flags.all("--trusted-proxy")) {
    const auto address = local_hub::http::numeric_address(each);
    if (!address)
      throw examples::usage_error("--trusted-proxy: \"" + each +
                                  "\" is no address such as 192.0.2.1 or 2001:db8::1");
    at.trusted_proxies.push_back(*address);
  }
  return at;
}

settings read_settings(const examples::flags& flags) {
  if (!flags.operands().empty() && flags.operands()[0] != "keys")
    throw examples::usage_error("\"" + flags.operands()[0] + "\": only flags are accepted");
  if (flags.has("--cert") != flags.has("--key"))
    throw examples::usage_error("--cert, --key: https needs both");
  if (flags.has("--epochs") && !flags.has("--make-model"))
    throw examples::usage_error("--epochs: only with --make-model");

  settings wanted;
  wanted.host = flags.text("--host").value_or(wanted.host);
  wanted.port = flags.whole_number("--port", 0, 65535).value_or(wanted.port);
  wanted.data = flags.text("--data").value_or(wanted.data.string());
  wanted.api_key = given_key(flags);
  wanted.new_model = flags.text("--make-model");
  wanted.epochs = flags.whole_number("--epochs", 1, 1'000'000);
  wanted.server.certificate_file = flags.text("--cert").value_or("");
  wanted.server.key_file = flags.text("--key").value_or("");
  wanted.server.upload_bytes_max = static_cast<std::uint64_t>(
      flags.number("--upload-bytes-max", 1, 1e15).value_or(16.0 * 1024 * 1024 * 1024));
  wanted.server.log_requests = !flags.has("--quiet");
  wanted.server.reached_at = read_addresses(flags);
  wanted.server.page_needs_key = !way_for_others(wanted).empty() || flags.has("--page-needs-key");
  wanted.store.silence = flags.seconds("--silence", 0.1).value_or(wanted.store.silence);
  if (const auto bytes = flags.number("--free-bytes-min", 0, 1e18))
    wanted.store.free_bytes_min = static_cast<std::uint64_t>(*bytes);
  return wanted;
}

// What trainings send is nobody else's on this machine. A folder from before stays as it is, as it
// may be shared on purpose.
void keep_private(const std::filesystem::path& data) {
#if LOCAL_HUB_POSIX
  ::umask(077);
  struct stat facts {};
  if (::stat(data.c_str(), &facts) == 0 && (facts.st_mode & 077) != 0)
    local_hub::say("other users of this machine can read " + data.string() +
                   "; chmod 700 changes that");
#else
  static_cast<void>(data);
#endif
}

// Where it listens.
std::string root_of(const settings& wanted) {
  const hub::text::url address{.tls = !wanted.server.certificate_file.empty(),
                               .host = wanted.host,
                               .port = wanted.port,
                               .path = wanted.server.reached_at.base_path};
  return address.text();
}

// Where clients find it.
std::string public_root_of(const settings& wanted) {
  const std::string& url = wanted.server.reached_at.public_url;
  return url.empty() ? root_of(wanted) : url;
}

// ---- keys ---------------------------------------------------------------------------------------

// Both forms of a key, which is shown this once, and what to paste into a shell. The first line is the
// key alone, so that a script can take it.
void show_key(const std::string& key, const std::string& root) {
  std::cout << key << "\n\n"
            << "# for HUB's clients, in Python and C++:\n"
            << "export ULTRALYTICS_HUB_API=" << root << " ULTRALYTICS_HUB_WEB=" << root << '\n'
            << "export ULTRALYTICS_API_KEY=" << key << "\n\n"
            << "# for the Platform's clients, in Python (ultralytics from 8.4 on) and C++:\n"
            << "export ULTRALYTICS_PLATFORM_URL=" << root << '\n'
            << "export ULTRALYTICS_API_KEY=" << local_hub::platform_form(key) << '\n';
}

// local_hub keys [list | make NAME | revoke NAME], beside a HUB that may be running at `root`.
void manage_keys(const std::vector<std::string>& words, const std::filesystem::path& data,
                 const std::string& root) {
  keep_private(data);
  local_hub::make_folder(data);
  local_hub::key_ring keys(data);
  const std::string verb = words.size() > 1 ? words[1] : "list";
  if (verb == "list" && words.size() < 3) {
    for (const auto& each : keys.list())
      std::cout << each.made << "  " << each.id() << "  " << hub::text::printable(each.name)
                << '\n';
  } else if (verb == "make" && words.size() == 3) {
    show_key(keys.make(words[2]), root);
  } else if (verb == "revoke" && words.size() == 3) {
    if (keys.revoke(words[2]) == 0 && !keys.revoke_id(words[2]))
      throw std::runtime_error("no key is named \"" + words[2] + "\"; `local_hub keys` lists them");
  } else {
    throw examples::usage_error("keys: list, make NAME or revoke NAME");
  }
}

// Others need a key, or they could train, delete and take away what they like.
void check_keys(const settings& wanted, local_hub::key_ring& keys) {
  const std::string way = way_for_others(wanted);
  if (!way.empty() && wanted.api_key.empty() && keys.list().empty())
    throw examples::usage_error(way +
                                " can be reached by others, so a key is needed: --api-key, or "
                                "`local_hub keys make NAME`");
}

// ---- until a signal comes -----------------------------------------------------------------------

std::atomic<bool> stop_wanted = false;
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may use nothing else");

extern "C" void want_stop(int number) {
  stop_wanted = true;
  std::signal(number, SIG_DFL);  // whoever asks a second time does not want to wait
}

void listen_to_signals() {
  for (const int number : {SIGINT, SIGTERM})
    if (std::signal(number, want_stop) == SIG_IGN) std::signal(number, SIG_IGN);  // as nohup wants
#if defined(SIGPIPE)
  std::signal(SIGPIPE, SIG_IGN);  // a client that has gone is no reason to go, too
#endif
}

// Serves until a signal comes. What is confirmed is on the disk at any time, so nothing is lost
// where a connection that hangs is not waited for.
void serve(local_hub::hub_server& server, const std::string& address) {
  constexpr auto patience = 8s;
  std::future<void> serving = std::async(std::launch::async, [&server] { server.serve(); });
  std::cout << "local_hub: listening on " << address << std::endl;
  while (!stop_wanted)
    if (serving.wait_for(50ms) == std::future_status::ready)
      throw std::runtime_error("the server ended by itself");
  server.stop();
  if (serving.wait_for(patience) != std::future_status::ready) std::_Exit(0);
}

// A connection is a file, and many systems start a program with 256 or 1,024 of them.
void allow_many_files() {
#if LOCAL_HUB_POSIX
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  constexpr rlim_t wanted = 8192;
  files.rlim_cur = std::max(files.rlim_cur, std::min(wanted, files.rlim_max));
  ::setrlimit(RLIMIT_NOFILE, &files);  // without it, fewer connections are served at once
#endif
}

// ---- the program --------------------------------------------------------------------------------

void run(settings wanted) {
  keep_private(wanted.data);
  local_hub::make_folder(wanted.data);
  local_hub::key_ring keys(wanted.data);
  check_keys(wanted, keys);
  const local_hub::file_lock lock(wanted.data / "lock", local_hub::file_lock::when_taken::fail);
  if (!wanted.api_key.empty()) keys.add_given(wanted.api_key);
  local_hub::model_store store(wanted.data, keys, wanted.store);
  if (wanted.new_model) {
    if (wanted.api_key.empty() && keys.list().empty())
      std::cout << "local_hub: API key " << keys.make(*wanted.new_model) << " (shown this once)\n";
    std::cout << "local_hub: model " << store.make_model(*wanted.new_model, wanted.epochs) << '\n';
  }

  allow_many_files();
  local_hub::run_store runs(wanted.data, store, keys);
  local_hub::hub_server server(store, runs, keys, wanted.server);
  wanted.port = server.bind(wanted.host, wanted.port);
  listen_to_signals();
  if (public_root_of(wanted) != root_of(wanted))
    std::cout << "local_hub: clients reach it at " << public_root_of(wanted) << '\n';
  serve(server, root_of(wanted));
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const examples::flags flags(
        argc, argv,
        {"--host", "--port", "--data", "--api-key", "--cert", "--key", "--make-model", "--epochs",
         "--upload-bytes-max", "--free-bytes-min", "--silence", "--base-path", "--public-url",
         "--trusted-proxy"},
        {"--quiet", "--page-needs-key", "--help"});
    if (flags.has("--help")) {
      std::cout << usage;
      return 0;
    }
    const settings wanted = read_settings(flags);
    if (flags.operands().empty())
      run(wanted);
    else
      manage_keys(flags.operands(), wanted.data, public_root_of(wanted));
    return 0;
  } catch (const examples::usage_error& problem) {
    std::cerr << "local_hub: " << problem.what() << "; see local_hub --help\n";
    return 2;
  } catch (const std::system_error& problem) {
    const bool threads = problem.code() == std::errc::resource_unavailable_try_again;
    std::cerr << "local_hub: "
              << (threads ? "this system gives no more threads; see ulimit -u" : problem.what())
              << '\n';
    return 1;
  } catch (const std::exception& problem) {  // a port that is taken, a folder that can't be written
    std::cerr << "local_hub: " << problem.what() << '\n';
    return 1;
  }
}

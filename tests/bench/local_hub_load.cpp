// SPDX-License-Identifier: MIT
//
// local_hub_load heartbeats|metrics|events URL KEY AGENTS SECONDS
// local_hub_load uploads URL KEY COUNT FILE
//
// What a running local_hub can take: agents that each have a model and a kept-alive connection and
// send a request as soon as the last one is answered, or sessions that upload a file all at once.
// What was measured goes to stdout as one JSON object. Agents work twice so long and say it each time,
// so that whoever reads can look at the server in between.

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

std::shared_ptr<const hub::epoch_record> values_of(int number) {
  const double value = 1.0 / (number + 1);
  return std::make_shared<const hub::epoch_record>(
      std::vector<std::pair<std::string, double>>{{"train/box_loss", value},
                                                  {"train/cls_loss", value / 2},
                                                  {"val/box_loss", value * 2},
                                                  {"metrics/mAP50-95(B)", 1 - value}});
}

// Runs one function per number at the same time, and throws the first exception of any.
void all_at_once(int count, const std::function<void(int)>& work) {
  std::vector<std::future<void>> running;
  running.reserve(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) running.push_back(std::async(std::launch::async, work, i));
  for (std::future<void>& each : running) each.get();
}

hub::request metrics_of(const hub::hub_v1_wire::caller& who, int epoch) {
  const std::vector<hub::queued_epoch> batch = {{epoch, values_of(epoch)}};
  return hub::hub_v1_wire::metrics_request(who, batch);
}

// A run of the Platform's that has just begun.
hub::platform_wire::run start_run(const std::string& url, const std::string& key) {
  hub::platform_wire::run of{.at = hub::platform_wire::parse_roots(url, "").value(),
                             .api_key = key,
                             .project = "load",
                             .name = "train",
                             .registration = R"({"epochs": 100, "trainArgs": {}})"};
  hub::httplib_transport transport;
  const hub::reply answer = send(transport, hub::platform_wire::start_request(of));
  of.model_id = hub::platform_wire::parse_event_reply(answer.body).model_id;
  return of;
}

// An epoch and 40 lines of a console in turn. The same epochs come again with other values, so that what
// there is to keep is soon no longer more, the lines on the disk aside.
hub::request event_of(const hub::platform_wire::run& of, int number) {
  constexpr int epochs = 100;
  constexpr int lines = 40;
  if (number % 2 == 0) {
    const hub::queued_epoch epoch = {number / 2 % epochs, values_of(number)};
    return hub::platform_wire::event_request(of, "epoch_end",
                                             hub::platform_wire::encode_epoch(epoch, ""));
  }
  std::string content;
  for (int line = 0; line < lines; ++line)
    content +=
        "epoch " + std::to_string(number) + ", batch " + std::to_string(line) + ": 0.123 s\n";
  const auto chunk = static_cast<std::uint64_t>(number / 2 + 1);
  return hub::platform_wire::event_request(
      of, "console_output", hub::platform_wire::encode_console(chunk, content, lines));
}

struct agent {
  std::function<hub::request(int number)> make;
  int sent = 0;
};

std::vector<agent> make_agents(const std::string& what, const std::string& url,
                               const std::string& key, int count) {
  std::vector<agent> agents;
  while (agents.size() < static_cast<std::size_t>(count)) {
    if (what == "events") {
      agents.push_back({[of = start_run(url, key)](int number) { return event_of(of, number); }});
      continue;
    }
    const std::string name = "agent-" + std::to_string(agents.size());
    const auto who = make_model(url, key);
    if (what == "heartbeats")
      agents.push_back(
          {[who, name](int) { return hub::hub_v1_wire::heartbeat_request(who, "load", name); }});
    else
      agents.push_back({[who](int number) { return metrics_of(who, number); }});
  }
  return agents;
}

void send_requests(std::vector<agent>& agents, std::chrono::seconds how_long) {
  std::atomic<std::uint64_t> answered = 0;
  const auto until = clock_type::now() + how_long;
  all_at_once(static_cast<int>(agents.size()), [&](int i) {
    agent& each = agents[static_cast<std::size_t>(i)];
    hub::httplib_transport transport;
    for (; clock_type::now() < until; ++each.sent) {
      send(transport, each.make(each.sent));
      ++answered;
    }
  });
  std::printf("{\"per_second\": %.0f}\n",
              static_cast<double>(answered) / static_cast<double>(how_long.count()));
  std::fflush(stdout);
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
    else {
      std::vector<agent> agents = make_agents(given[0], given[1], given[2], count);
      for (int half = 0; half < 2; ++half)
        send_requests(agents, std::chrono::seconds(std::stoi(given[4])));
    }
  } catch (const std::exception& problem) {
    std::fprintf(stderr, "local_hub_load: %s\n", problem.what());
    return 1;
  }
}

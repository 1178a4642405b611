// SPDX-License-Identifier: MIT
//
// Tests of the engine's lane of uploads, as scripts: checkpoints, the final model, and the end of
// training.

#include <chrono>
#include <memory>
#include <vector>

#include "../hub_session.hpp"
#include "support/catch.hpp"
#include "support/engine_script.hpp"

namespace engine_uploads_tests {

namespace {

using namespace script;
using hub::session_options;
using epochs = std::vector<int>;

}  // namespace

// ---- checkpoints ----------------------------------------------------------------------------

TEST_CASE("a checkpoint is wanted an interval after training starts, and after the last one") {
  training run;
  run.start();
  CHECK_FALSE(run.wants_checkpoint());
  run.wait(15min - 1ns);
  CHECK_FALSE(run.wants_checkpoint());
  run.wait(1ns);
  CHECK(run.wants_checkpoint());
  run.wait(5min);
  CHECK(run.wants_checkpoint());
  run.save(1);
  CHECK_FALSE(run.wants_checkpoint());
  run.wait(15min);
  CHECK(run.wants_checkpoint());
}

TEST_CASE("the first question for a checkpoint starts the training where nothing else did") {
  training run;
  run.wait(1h);
  CHECK_FALSE(run.wants_checkpoint());
  run.wait(15min);
  CHECK(run.wants_checkpoint());
}

TEST_CASE("a checkpoint goes out at once, as it was given, one at a time") {
  training run;
  run.start();
  run.wait(15min);
  CHECK_FALSE(run.due(lane::uploads));
  run.engine.handle_checkpoint({{.epoch = 7, .is_best = true}, "runs/last.pt", nullptr}, run.now());
  CHECK(run.engine.status().checkpoint_waiting);
  const auto sent = run.upload();
  REQUIRE(sent);
  CHECK(sent->fields.epoch == 7);
  CHECK(sent->fields.is_best);
  CHECK_FALSE(sent->fields.is_final);
  CHECK(sent->file == "runs/last.pt");
  CHECK_FALSE(run.due(lane::uploads));
  run.wait(10min);
  run.answer(lane::uploads, delivered());
  CHECK_FALSE(run.due(lane::uploads));
  CHECK_FALSE(run.engine.status().checkpoint_waiting);
  CHECK(run.engine.status().checkpoints_delivered == 1);
}

TEST_CASE("a failed checkpoint is repeated with growing waits, whatever its rate limit") {
  training run(steady());
  run.start();
  run.wait(15min);
  run.save(1);
  std::vector<duration> gaps;
  duration last = 15min;
  for (int i = 0; i < 5; ++i) {
    run.wait_for(lane::uploads);
    REQUIRE(run.uploaded_epoch() == 1);
    gaps.push_back(run.elapsed() - last);
    last = run.elapsed();
    run.answer(lane::uploads, i == 3 ? denied() : failed());
  }
  CHECK(gaps == std::vector<duration>{0s, 1s, 2s, 4s, 5min});
  CHECK(run.engine.status().checkpoints_failed == 0);
}

TEST_CASE("a newer checkpoint replaces one that waits, and begins anew") {
  training run(steady());
  run.start();
  run.wait(15min);
  run.save(1);
  REQUIRE(run.uploaded_epoch() == 1);
  run.answer(lane::uploads, denied(15min));
  CHECK(run.due(lane::uploads) == 30min);
  run.wait(14min);
  run.save(2);
  CHECK(run.due(lane::uploads) == 30min);  // its own rate limit, not the old one's backoff
  run.wait_for(lane::uploads);
  CHECK(run.uploaded_epoch() == 2);
  run.answer(lane::uploads, failed());
  CHECK(run.due(lane::uploads) == 30min + 1s);
}

TEST_CASE("a newer checkpoint waits for one in flight, whatever becomes of that") {
  training run(steady());
  run.start();
  run.wait(15min);
  run.save(1);
  REQUIRE(run.uploaded_epoch() == 1);
  run.wait(20min);
  run.save(2);
  run.save(3);
  CHECK(run.uploaded_epoch() == -1);
  CHECK(run.engine.replaced_upload_in_flight());
  const auto [answer, arrived, failures] =
      GENERATE(table<outcome, std::size_t, std::size_t>({{delivered(), 1, 0},
                                                         {failed(), 0, 0},
                                                         {denied(), 0, 0},
                                                         {refused(), 0, 0},
                                                         {file_changed(), 0, 0}}));
  run.answer(lane::uploads, answer);
  CHECK_FALSE(run.engine.replaced_upload_in_flight());
  CHECK(run.engine.status().checkpoints_delivered == arrived);
  CHECK(run.engine.status().checkpoints_failed == failures);
  CHECK(run.uploaded_epoch() == 3);
  run.answer(lane::uploads, delivered());
  CHECK(run.engine.status().checkpoints_delivered == arrived + 1);
  CHECK_FALSE(run.due(lane::uploads));
}

TEST_CASE("a checkpoint that replaces a flushed one waits for its own rate limit") {
  training run;
  run.start();
  run.wait(15min);
  run.save(1);
  run.flush(lane::uploads);
  REQUIRE(run.uploaded_epoch() == 1);
  run.save(2);
  run.answer(lane::uploads, failed());
  CHECK(run.due(lane::uploads) == 30min);
}

TEST_CASE("a flush sends a checkpoint whatever its rate limit, once") {
  training run(steady());
  run.start();
  run.wait(1min);
  run.save(1);
  run.flush(lane::uploads);
  CHECK(run.uploaded_epoch() == 1);
  run.answer(lane::uploads, delivered());
  run.wait(1min);
  run.save(2);
  CHECK(run.due(lane::uploads) == 16min);
}

TEST_CASE("a file that changes under the upload is sent again at once, so often and no more") {
  session_options options = steady();
  options.limits.upload_restarts_max = 3;
  training run(options);
  run.start();
  run.wait(15min);
  run.save(1);
  for (int i = 0; i < 4; ++i) {
    CHECK(run.engine.status().checkpoints_failed == 0);
    REQUIRE(run.uploaded_epoch() == 1);
    run.answer(lane::uploads, file_changed());
  }
  CHECK_FALSE(run.due(lane::uploads));
  CHECK(run.engine.status().checkpoints_failed == 1);
  CHECK_FALSE(run.engine.status().checkpoint_waiting);
  const auto notes = run.notes();
  REQUIRE(notes.size() == 1);
  CHECK(notes[0].level == hub::log_level::error);
  CHECK(says(notes, "The file changed."));
  CHECK(run.wants_checkpoint());
}

TEST_CASE("restarts are counted for each checkpoint by itself, and not as failures") {
  session_options options = steady();
  options.limits.upload_restarts_max = 1;
  training run(options);
  run.start();
  run.wait(15min);
  run.save(1);
  REQUIRE(run.uploaded_epoch() == 1);
  run.answer(lane::uploads, file_changed());
  REQUIRE(run.uploaded_epoch() == 1);
  run.answer(lane::uploads, failed());
  CHECK(run.due(lane::uploads) == 15min + 1s);
  run.wait(15min);
  run.save(2);
  REQUIRE(run.uploaded_epoch() == 2);
  run.answer(lane::uploads, file_changed());
  CHECK(run.uploaded_epoch() == 2);
}

TEST_CASE("an upload that begins anew for another reason waits longer each time, and is kept") {
  session_options options = steady();
  options.limits.upload_restarts_max = 1;
  training run(options);
  run.start();
  run.wait(15min);
  run.save(1);
  hub::duration wait = 1s;
  for (int i = 0; i < 6; ++i, wait *= 2) {
    REQUIRE(run.uploaded_epoch() == 1);
    run.answer(lane::uploads, {.verdict = hub::verdict::advanced, .so_far = {.step = 1}});
    REQUIRE(run.uploaded_epoch() == 1);  // the next step goes at once
    const hub::duration then = run.elapsed();
    run.answer(lane::uploads, {.verdict = hub::verdict::restart,
                               .why = {hub::errc::access_denied, "The URL is over.", 403}});
    REQUIRE(run.due(lane::uploads) == then + wait);
    run.wait(wait);
  }
  CHECK(run.engine.status().checkpoint_waiting);
  CHECK(run.notes().size() == 1);
}

TEST_CASE("a checkpoint that could not be read leaves its turn to the next one") {
  training run;
  run.start();
  run.wait(15min);
  SECTION("when it was saved") {
    REQUIRE(run.wants_checkpoint());
    run.engine.handle_checkpoint_failure({hub::errc::file_error, "It is a directory.", 0});
    CHECK_FALSE(run.due(lane::uploads));
  }
  SECTION("when it was to be sent") {
    run.save(1);
    REQUIRE(run.uploaded_epoch() == 1);
    run.answer(lane::uploads, file_missing());
  }
  CHECK(run.engine.status().checkpoints_failed == 1);
  CHECK(run.said() == 1);
  CHECK(run.wants_checkpoint());
  run.wait(1s);
  run.save(2);
  CHECK(run.uploaded_epoch() == 2);  // nothing was sent, so no rate limit has begun
}

TEST_CASE("a checkpoint that HUB refuses for good is counted and said, and the rate limit stands") {
  training run;
  run.start();
  run.wait(15min);
  run.save(1);
  REQUIRE(run.uploaded_epoch() == 1);
  run.answer(lane::uploads, refused());
  CHECK(run.engine.status().checkpoints_failed == 1);
  CHECK_FALSE(run.engine.status().checkpoint_waiting);
  CHECK(run.said() == 1);
  run.wait(1s);
  if (run.wants_checkpoint()) run.save(2);
  run.wait(14min);
  CHECK(run.uploaded_epoch() == -1);
}

TEST_CASE("a snapshot is let go as soon as its upload is over, replaced or given up") {
  training run(steady());
  run.start();
  struct any_copy : hub::upload_copy {
    hub::result<std::shared_ptr<hub::body_source>> open() const override { return hub::error{}; }
  };
  const auto saved = [&](int number) {
    const auto snapshot = std::make_shared<const any_copy>();
    run.save(number, snapshot);
    return std::weak_ptr<const any_copy>(snapshot);
  };
  run.wait(15min);
  const auto replaced = saved(1);
  CHECK_FALSE(replaced.expired());
  const auto delivered_one = saved(2);
  CHECK(replaced.expired());
  { CHECK(run.uploaded_epoch() == 2); }
  CHECK_FALSE(delivered_one.expired());
  run.answer(lane::uploads, delivered());
  CHECK(delivered_one.expired());

  run.wait(15min);
  const auto refused_one = saved(3);
  CHECK(run.uploaded_epoch() == 3);
  run.answer(lane::uploads, refused());
  CHECK(refused_one.expired());

  run.wait(15min);
  const auto waiting = saved(4);
  run.end(5);
  CHECK(waiting.expired());
}

// ---- the end of training --------------------------------------------------------------------

TEST_CASE("at the end metrics go out without waiting, then the final model") {
  training run(steady());
  run.epochs(0, 149);
  run.wait(1s);
  run.end(149);
  CHECK_FALSE(run.engine.epochs_done());
  CHECK_FALSE(run.engine.done());
  CHECK(run.uploaded_epoch() == -1);
  CHECK(run.batch() == from_to(0, 99));
  run.answer(lane::epochs, delivered());
  CHECK(run.uploaded_epoch() == -1);
  CHECK(run.batch() == from_to(100, 149));
  run.answer(lane::epochs, delivered());
  CHECK(run.engine.epochs_done());
  const auto sent = run.upload();
  REQUIRE(sent);
  CHECK(sent->fields.is_final);
  CHECK(sent->file == "best.pt");
  CHECK_FALSE(run.engine.delivery().complete());
  run.answer(lane::uploads, delivered());
  CHECK(run.engine.done());
  const hub::delivery delivery = run.engine.delivery();
  CHECK(delivery.complete());
  CHECK(delivery.epochs_delivered == 150);
  CHECK(delivery.final_model_wanted);
  CHECK(delivery.final_model_delivered);
  CHECK(delivery.checkpoints_delivered == 0);
}

TEST_CASE("at the end a checkpoint that waits gives way to the final model") {
  training run(steady());
  run.start();
  run.wait(15min);
  run.save(1);
  REQUIRE(run.uploaded_epoch() == 1);
  run.answer(lane::uploads, denied());
  run.end(2);
  const auto sent = run.upload();
  REQUIRE(sent);
  CHECK(sent->fields.is_final);
  run.answer(lane::uploads, delivered());
  CHECK(run.engine.done());
  CHECK(run.engine.delivery().complete());
}

TEST_CASE("at the end a checkpoint in flight is finished first, never alongside the final model") {
  training run(steady());
  run.start();
  run.wait(15min);
  run.save(1);
  REQUIRE(run.uploaded_epoch() == 1);
  run.end(2);
  CHECK(run.engine.replaced_upload_in_flight());
  CHECK(run.uploaded_epoch() == -1);
  const auto [answer, arrived] = GENERATE(table<outcome, std::size_t>(
      {{delivered(), 1}, {failed(hub::errc::cancelled), 0}, {refused(), 0}, {file_changed(), 0}}));
  run.answer(lane::uploads, answer);
  CHECK_FALSE(run.engine.replaced_upload_in_flight());
  CHECK_FALSE(run.engine.done());
  const auto sent = run.upload();
  REQUIRE(sent);
  CHECK(sent->fields.is_final);
  run.answer(lane::uploads, delivered());
  CHECK(run.engine.delivery().complete());
  CHECK(run.engine.delivery().checkpoints_delivered == arrived);
}

TEST_CASE("without a final model the end waits for a checkpoint in flight alone") {
  training run(steady());
  run.start();
  run.wait(15min);
  run.save(1);
  REQUIRE(run.uploaded_epoch() == 1);
  run.end_without_model();
  CHECK_FALSE(run.engine.replaced_upload_in_flight());
  CHECK_FALSE(run.engine.done());
  run.answer(lane::uploads, failed());
  CHECK_FALSE(run.engine.done());
  run.wait_for(lane::uploads);
  REQUIRE(run.uploaded_epoch() == 1);
  run.answer(lane::uploads, delivered());
  CHECK(run.engine.done());
  CHECK(run.engine.delivery().complete());
  CHECK_FALSE(run.engine.delivery().final_model_wanted);
}

TEST_CASE("without a final model a checkpoint that waits is still sent, or said to be missing") {
  training run(steady());
  run.start();
  run.wait(15min);
  run.save(1);
  REQUIRE(run.uploaded_epoch() == 1);
  run.answer(lane::uploads, failed());
  run.end_without_model();
  const bool sent = run.uploaded_epoch() == 1;
  if (sent) run.answer(lane::uploads, delivered());
  CHECK(run.engine.delivery().complete() == sent);
}

TEST_CASE("an end with nothing left to send is done at once") {
  training run;
  run.start();
  run.end_without_model();
  CHECK(run.engine.epochs_done());
  CHECK(run.engine.done());
  CHECK(run.engine.delivery().complete());
}

TEST_CASE("after the end no checkpoint is wanted or taken") {
  training run;
  run.start();
  run.end_without_model();
  run.wait(1h);
  CHECK_FALSE(run.wants_checkpoint());
  run.save(9);
  CHECK_FALSE(run.due(lane::uploads));
  CHECK_FALSE(run.engine.status().checkpoint_waiting);
}

TEST_CASE("after the end each lane is given up after its retries, and the reason is kept") {
  session_options options = steady();
  options.retry.final_retries_max = GENERATE(0U, 1U, 10U);
  const unsigned tries = options.retry.final_retries_max + 1;
  training run(options);
  run.epoch(0);
  run.end(0);
  for (unsigned i = 0; i < tries; ++i) {
    CHECK_FALSE(run.engine.epochs_done());
    run.wait_for(lane::epochs);
    REQUIRE(run.batch() == epochs{0});
    run.answer(lane::epochs, failed(hub::errc::not_reachable));
  }
  CHECK(run.engine.epochs_done());
  CHECK_FALSE(run.due(lane::epochs));
  for (unsigned i = 0; i < tries; ++i) {
    CHECK_FALSE(run.engine.done());
    run.wait_for(lane::uploads);
    REQUIRE(run.uploaded_epoch() == 0);
    run.answer(lane::uploads, failed(hub::errc::timed_out));
  }
  CHECK(run.engine.done());
  CHECK_FALSE(run.due(lane::uploads));
  const hub::delivery delivery = run.engine.delivery();
  CHECK_FALSE(delivery.complete());
  CHECK(delivery.epochs_queued == 1);
  CHECK(delivery.final_model_wanted);
  CHECK_FALSE(delivery.final_model_delivered);
  REQUIRE(delivery.why);
  CHECK(delivery.why->code == hub::errc::timed_out);
}

TEST_CASE("failures before the end do not count against the final retries") {
  training run(steady());
  run.epoch(0);
  for (int i = 0; i < 20; ++i) {
    run.wait_for(lane::epochs);
    REQUIRE_FALSE(run.batch().empty());
    run.answer(lane::epochs, failed());
  }
  run.end(0);
  CHECK_FALSE(run.engine.epochs_done());
  CHECK(run.batch() == epochs{0});
}

TEST_CASE("a final model that HUB refuses, or whose file is missing, is over at once and said") {
  const auto [answer, code] = GENERATE(table<outcome, hub::errc>(
      {{refused(), hub::errc::rejected}, {file_missing(), hub::errc::file_error}}));
  training run;
  run.start();
  run.end(3);
  REQUIRE(run.uploaded_epoch() == 3);
  run.answer(lane::uploads, answer);
  CHECK(run.engine.done());
  CHECK(run.said() == 1);
  CHECK_FALSE(run.engine.delivery().final_model_delivered);
  REQUIRE(run.engine.delivery().why);
  CHECK(run.engine.delivery().why->code == code);
}

TEST_CASE("a checkpoint that failed is no gap once the final model has arrived") {
  training run;
  run.start();
  run.wait(15min);
  run.save(1);
  REQUIRE(run.uploaded_epoch() == 1);
  run.answer(lane::uploads, refused());
  CHECK_FALSE(run.engine.delivery().complete());
  run.end(2);
  REQUIRE(run.uploaded_epoch() == 2);
  run.answer(lane::uploads, delivered());
  CHECK(run.engine.delivery().complete());
}

TEST_CASE("a delivery is not complete while a checkpoint waits or is in flight") {
  training run;
  run.start();
  run.wait(15min);
  run.save(1);
  CHECK_FALSE(run.engine.delivery().complete());
  REQUIRE(run.uploaded_epoch() == 1);
  CHECK_FALSE(run.engine.delivery().complete());
  run.answer(lane::uploads, delivered());
  CHECK(run.engine.delivery().complete());
}

TEST_CASE("after a stop nothing goes out, and what comes back still counts") {
  training run;
  run.sign_in();
  run.epochs(0, 1);
  REQUIRE(run.beat());
  run.wait_for(lane::epochs);
  REQUIRE(run.batch() == epochs{0, 1});
  run.engine.handle_stop();
  run.answer(lane::epochs, delivered());
  run.answer(lane::life, delivered());
  run.epoch(2);
  run.save(2);
  run.wait(1h);
  for (lane which : hub::all_lanes) {
    CHECK_FALSE(run.due(which));
    CHECK_FALSE(run.engine.poll(which, run.now()));
  }
  CHECK(run.engine.epochs_done());
  CHECK(run.engine.done());
  CHECK(run.engine.status().epochs_delivered == 2);
  CHECK_FALSE(run.engine.delivery().complete());
}

}  // namespace engine_uploads_tests

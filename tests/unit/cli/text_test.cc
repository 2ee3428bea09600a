#include <catch2/catch.hpp>

#include <boost/json/array.hpp>
#include <boost/json/parse.hpp>

#include "ops/cli/client/event_stream.h"
#include "ops/cli/client/fields.h"
#include "ops/cli/text/job_text.h"
#include "ops/cli/text/log_lines.h"
#include "ops/cli/text/progress.h"
#include "ops/cli/text/table.h"

namespace tutti::cli {
namespace {

namespace json = boost::json;

TEST_CASE("table: columns align by characters, and colours do not move them") {
  Table table({{"NAME"}, {"STATE"}, {"N", Align::right}});
  table.add({"größe", "running", "7"});
  table.add({"b", "odd", "1234"});
  CHECK(table.print(Paint::plain) ==
        "NAME   STATE       N\n"
        "größe  running     7\n"
        "b      odd      1234\n");
  CHECK(table.print(Paint::coloured).find("\x1b[32mrunning\x1b[0m     7\n") != std::string::npos);
}

TEST_CASE("table: a text is shortened between characters") {
  CHECK(shortened("größe", 3) == "grö");
  CHECK(shortened("größe", 5) == "größe");
  CHECK(shortened("größe", 9) == "größe");
  CHECK(shortened("x", 0).empty());
}

TEST_CASE("table: quantities are short and carry their unit") {
  CHECK(print_duration(0.34) == "340 ms");
  CHECK(print_duration(12.34) == "12.3 s");
  CHECK(print_duration(59.99) == "1 m 0 s");
  CHECK(print_duration(11'105) == "3 h 5 m");
  CHECK(print_duration(176'400) == "2 d 1 h");
  CHECK(print_duration(-1) == "-");
  CHECK(print_count(950) == "950");
  CHECK(print_count(7'432) == "7.4k");
  CHECK(print_count(1'234'567) == "1.2M");
  CHECK(print_bytes_short(std::uint64_t{1536} << 20) == "1.5 GiB");
  CHECK(print_bytes_short(512) == "512 B");
}

json::value step(int number, double seconds) {
  return json::parse(R"({"step": )" + std::to_string(number) +
                     R"(, "loss": 3.25, "tokens": 4096, "seconds": )" + std::to_string(seconds) +
                     R"(, "ranks": 2})");
}

TEST_CASE("progress: the line has the step, the loss, the recent speed and the time left") {
  Progress progress;
  progress.set_job(json::parse(R"({"name": "kjv", "state": "queued", "waiting": "2 free slots"})"));
  CHECK(progress.line() == "kjv  queued (2 free slots)");
  progress.set_job(json::parse(R"({"name": "kjv", "state": "running", "steps": 2000})"));
  for (int i = 1; i <= 100; ++i) progress.add_step(step(i, i <= 50 ? 100 : 0.5));
  CHECK(progress.line() ==
        "kjv  step  100/2000  loss 3.2500  8.2k tokens/s  2 ranks  ETA 15 m 50 s");
  progress.set_job(json::parse(R"({"name": "kjv", "state": "recovering", "steps": 2000})"));
  CHECK(progress.line() == "kjv  step  100/2000  loss 3.2500  8.2k tokens/s  2 ranks  recovering");
}

TEST_CASE("progress: each recovery is told once when it begins and once when it is over") {
  Progress progress;
  const json::value begun = json::parse(
      R"({"name": "a", "state": "recovering",
          "recoveries": [{"generation": 1, "cause": "rank 1 was killed", "first_step_ms": -1}]})");
  progress.set_job(begun);
  progress.set_job(begun);
  CHECK(progress.take_notices() == std::vector<std::string>{"recovering: rank 1 was killed"});
  const json::value over = json::parse(
      R"({"name": "a", "state": "running",
          "recoveries": [{"generation": 2, "cause": "rank 1 was killed", "seen_ms": 0,
                          "aborted_ms": 12, "regrouped_ms": 230, "copied_ms": 300,
                          "first_step_ms": 1610, "from_step": 41, "lost_steps": 0}]})");
  progress.set_job(over);
  progress.set_job(over);
  CHECK(
      progress.take_notices() ==
      std::vector<std::string>{
          "recovered: generation 2: rank 1 was killed; seen 0 ms, aborted 12 ms, regrouped 230 ms, "
          "copied 300 ms, first step 1.6 s; from step 41, 0 steps lost"});
  CHECK(progress.take_notices().empty());
}

TEST_CASE("progress: a program's recovery is over when it runs again") {
  Progress progress;
  progress.set_job(json::parse(R"({"name": "ddp", "kind": "run", "recoveries": [
      {"generation": 2, "cause": "worker b was lost", "over": true, "seen_ms": 0, "decided_ms": 40,
       "aborted_ms": 30, "regrouped_ms": null, "copied_ms": 900, "first_step_ms": null}]})"));
  CHECK(progress.take_notices() ==
        std::vector<std::string>{"recovered: generation 2: worker b was lost; seen 0 ms, decided "
                                 "40 ms, aborted 30 ms, running 900 ms"});
}

TEST_CASE("logs: lines of several ranks are held until they are whole and named") {
  LogLines lines(LogPrefix::rank);
  CHECK(lines.add(json::parse(R"({"rank": 0, "process": 5, "text": "one\ntw"})")) ==
        "[rank 0] one\n");
  CHECK(lines.add(json::parse(R"({"rank": 1, "process": 6, "text": "x\n"})")) == "[rank 1] x\n");
  CHECK(lines.add(json::parse(R"({"rank": 0, "process": 5, "text": "o\n\nthree"})")) ==
        "[rank 0] two\n[rank 0] \n");
  CHECK(lines.rest() == "[rank 0] three\n");
  CHECK(lines.rest().empty());
  CHECK(LogLines(LogPrefix::none).add(json::parse(R"({"text": "raw"})")) == "raw");
}

TEST_CASE("event stream: events are whole however the bytes are cut") {
  const std::string bytes =
      ": comment\r\ndata: {\"a\": 1}\r\n\r\nevent: x\ndata:two\ndata: lines\n\ndata: open";
  for (std::size_t cut = 0; cut <= bytes.size(); ++cut) {
    EventStream stream;
    std::vector<std::string> events = stream.add(bytes.substr(0, cut));
    for (std::string& event : stream.add(bytes.substr(cut))) events.push_back(std::move(event));
    CHECK(events == std::vector<std::string>{"{\"a\": 1}", "two\nlines"});
  }
}

TEST_CASE("fields: what is missing or of another type is its default") {
  const json::value value = json::parse(R"({"n": 3.9, "t": "x", "z": null, "b": true})");
  CHECK(whole_of(value, "t", 7) == 7);
  CHECK(whole_of(value, "none") == 0);
  CHECK(number_of(value, "n") == 3.9);
  CHECK(text_of(value, "n").empty());
  CHECK_FALSE(has(value, "z"));
  CHECK(flag_of(value, "b"));
  CHECK(list_of(value, "t").empty());
  CHECK(text_of(json::value(3), "t").empty());
}

TEST_CASE("job page: shows what matters and survives a job with nothing in it") {
  const json::value job = json::parse(
      R"({"id": 7, "name": "kjv", "kind": "train", "state": "failed", "generation": 2, "ranks": 2,
          "step": 40, "steps": 100, "exit_code": 1, "submitted_unix_ms": 1000,
          "started_unix_ms": 2000, "ended_unix_ms": 62000, "checkpoints": [20, {"step": 40}],
          "failure": {"class": "user", "message": "no such file a.txt"},
          "spec": "name: kjv\nkind: train\n"})");
  const std::string page = job_page(job, WallTime{100'000}, Paint::plain);
  CHECK(page.find("failure      no such file a.txt (user)\n") != std::string::npos);
  CHECK(page.find("time         1 m 0 s\n") != std::string::npos);
  CHECK(page.find("checkpoints  step-20 step-40\n") != std::string::npos);
  CHECK(page.find("spec\n  name: kjv\n  kind: train\n") != std::string::npos);
  CHECK(page.find("budgets") == std::string::npos);  // an older coordinator does not say
  const json::value array = json::parse(
      R"({"id": 3, "name": "sweep", "state": "running",
          "tasks": {"total": 6, "done": 2, "failed": 1},
          "telling_tasks": [{"index": 3, "job": 7, "state": "failed",
                             "message": "exited with 1"}]})");
  const std::string tasks = job_page(array, WallTime{}, Paint::plain);
  CHECK(tasks.find("tasks        2/6 tasks, 1 failed\n") != std::string::npos);
  CHECK(tasks.find("     3    7  failed  exited with 1\n") != std::string::npos);
  CHECK_FALSE(job_page(json::object{}, WallTime{}, Paint::plain).empty());
  CHECK(jobs_table({}, WallTime{}, Paint::plain) == "no jobs\n");
}

TEST_CASE("job page: every budget is shown, and how the program ended") {
  const json::value job = json::parse(
      R"({"id": 7, "state": "failed", "exit_code": 1,
          "failure": {"class": "user", "message": "rank 0: ended by signal 11", "code": null,
                      "signal": 11},
          "budgets": {"user": {"used": 2, "of": 1}, "infrastructure": {"used": 3, "of": 20},
                      "own": {"used": 0, "of": 3}, "preempted": {"used": 4, "of": null},
                      "drained": 5, "resized": 6}})");
  const std::string page = job_page(job, WallTime{}, Paint::plain);
  CHECK(
      page.find("budgets      user 2/1, infrastructure 3/20, own 0/3, preempted 4, drained 5\n") !=
      std::string::npos);
  CHECK(page.find("signal       11\n") != std::string::npos);
  CHECK(page.find("\ncode ") == std::string::npos);
}

TEST_CASE("node page: a device's links, and the slowest and fastest copy that was measured") {
  const auto page = [](const std::string& links) {
    return node_page(
        json::parse(R"({"devices": [{"uuid": "GPU-0", "reading": {"links": )" + links + "}}]}"),
        Paint::plain);
  };
  const std::string measured = page(R"([{"uuid": "GPU-1", "count": 4, "mb_per_s": 380250},
                                        {"uuid": "GPU-2", "count": 0, "mb_per_s": 21000}])");
  CHECK(measured.find("linked to 1 others, copies to others at 21.0 to 380.2 GB/s\n") !=
        std::string::npos);
  CHECK(page(R"([{"uuid": "GPU-1", "count": 0, "mb_per_s": 21000}])")
            .find("copies to others at 21.0 GB/s\n") != std::string::npos);
  CHECK(page(R"([{"uuid": "GPU-1", "count": 4, "mb_per_s": null}])").find("copies") ==
        std::string::npos);
}

TEST_CASE("job page: ranks with step, collective, slowness and limits fit into 100 columns") {
  const json::value train = json::parse(
      R"({"processes": [
          {"job": 7, "rank": 0, "worker": "gpu-node-017", "slot": 12, "pid": 4194303,
           "phase": "exchange", "step": 1200000, "collective": 12000000, "straggler": 1.84,
           "limits": "cgroup2: memory 2 GiB"},
          {"job": 7, "rank": 1, "worker": "b", "slot": 1, "pid": 2, "phase": "compute", "step": 7,
           "collective": 812, "straggler": 0, "limits": ""}]})");
  const std::string page = job_page(train, WallTime{}, Paint::plain);
  CHECK(page.find(
            "RANK  NODE          SLOT      PID  PHASE        STEP  COLLECTIVE  SLOWER  LIMITS\n") !=
        std::string::npos);
  CHECK(page.find("exchange  1200000    12000000    1.8x  cgroup2: memory 2 GiB\n") !=
        std::string::npos);
  CHECK(page.find("compute         7         812\n") != std::string::npos);
  const std::size_t title = page.find("  RANK");
  CHECK(page.find('\n', title) - title <= 100);
  const json::value run =
      json::parse(R"({"processes": [{"job": 9, "rank": 0, "worker": "a", "phase": "running"}]})");
  CHECK(job_page(run, WallTime{}, Paint::plain).find("PHASE\n") != std::string::npos);
  CHECK(node_page(run, Paint::plain).find("JOB  RANK  NODE") != std::string::npos);
}

TEST_CASE("tables of jobs and nodes: whose a job is, what a node is for, and why it is taken out") {
  const json::value jobs = json::parse(
      R"([{"id": 7, "name": "kjv", "kind": "train", "owner": "ann", "state": "queued"}])");
  CHECK(jobs_table(jobs.as_array(), WallTime{}, Paint::plain).find("train  ann    queued") !=
        std::string::npos);
  const json::value nodes = json::parse(
      R"([{"name": "a", "state": "drained", "host": "h", "labels": ["zone=a", "disk=nvme"],
           "drain": {"cause": "asked", "reason": "new memory"}}, {"name": "b", "drain": null}])");
  const std::string table = nodes_table(nodes.as_array(), Paint::plain);
  CHECK(table.find("zone=a, disk=nvme  new memory") != std::string::npos);
  CHECK(table.find("-                  -") != std::string::npos);
}

}  // namespace
}  // namespace tutti::cli

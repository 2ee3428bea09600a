#include "ops/cli/faults/reference.h"

#include <fmt/core.h>

#include <boost/json/object.hpp>

#include <algorithm>

#include "ops/cli/client/fields.h"
#include "ops/cli/client/watch.h"
#include "ops/cli/replay.h"
#include "protocol/base/secret.h"
#include "protocol/spec/parse.h"

namespace tutti::cli {

namespace json = boost::json;

namespace {

// From where on a replay is worth it: the first step that a fault may have touched.
std::uint64_t first_touched(const FaultHistory& history) {
  std::uint64_t first = history.steps.back().step;
  for (const InjectedFault& fault : history.faults) {
    if (fault.outcome == InjectionOutcome::injected) first = std::min(first, fault.step);
  }
  return std::max(first, history.steps.front().step);
}

spec::JobSpec reference_spec(const FaultHistory& history, const json::value& job) {
  const ReferenceSeen& reference = history.reference;
  if (history.file.compare == FaultCompare::undisturbed) {
    return undisturbed_spec(*history.spec, reference.last, history.job.id);
  }
  const StepRange range{reference.first, reference.last};
  return replay_spec(*history.spec, choose_base(job, range), range, history.job.id);
}

Result<> run_reference(Api& api, FaultUndo& undo, const spec::JobSpec& spec,
                       ReferenceSeen& reference, std::chrono::milliseconds within) {
  if (!undo.submits()) return Error{ErrorCode::aborted, "the run was ended"};
  const json::object body{
      {"spec", spec::to_yaml(spec)}, {"file", spec.name}, {"key", random_hex(16)}};
  const Result<json::value> answer = api.post("/api/v1/jobs", body, Api::Repeat::allowed);
  if (!answer) return answer.error();
  reference.job = static_cast<std::uint64_t>(whole_of(*answer, "id"));
  undo.submitted(reference.job);
  const Result<json::value> ended = wait_for_end(api, reference.job, within);
  if (!ended) return ended.error();
  undo.ended(reference.job);
  reference.state = text_of(*ended, "state");
  const StreamOptions steps{
      fmt::format("/api/v1/jobs/{}/steps", reference.job), "", "steps", Follow::yes, "0", nullptr};
  return read_stream(api, steps, [&](const json::value& record) {
    const StepSeen step = step_seen(record);
    reference.weights.emplace(step.step, step.weights);
  });
}

}  // namespace

spec::JobSpec undisturbed_spec(const spec::JobSpec& spec, std::uint64_t last, std::uint64_t job) {
  spec::JobSpec out = spec;
  out.name = fmt::format("undisturbed-{}", job);
  out.train.stop = last;
  out.checkpoint = {.every = 0, .keep = 0, .last = false};
  out.limit = {};
  out.after = {};
  return out;
}

void make_reference(Api& api, Session& session, FaultUndo& undo, const json::value& job,
                    FaultHistory& history, std::chrono::milliseconds within) {
  ReferenceSeen& reference = history.reference;
  if (history.file.compare == FaultCompare::none) {
    reference.why_not = "compare: none";
    return;
  }
  if (!history.spec || history.spec->kind != spec::JobKind::train || history.steps.empty()) {
    reference.why_not = "no step is recorded";
    return;
  }
  const bool whole = history.file.compare == FaultCompare::undisturbed;
  reference.first = whole ? history.steps.front().step : first_touched(history);
  reference.last = history.steps.back().step;
  if (!session.json()) {
    print(whole
              ? fmt::format("comparing: the same spec without faults, to step {}\n", reference.last)
              : fmt::format("comparing: a replay on one rank, steps {} to {}\n", reference.first,
                            reference.last));
  }
  const Result<> run = run_reference(api, undo, reference_spec(history, job), reference, within);
  if (!run) reference.problem = run.error().message;
}

}  // namespace tutti::cli

// tutti doctor: what is wrong with this machine or cluster, and what to do.
#include <memory>

#include "ops/cli/client/connection.h"
#include "ops/cli/client/fields.h"
#include "ops/cli/doctor/findings.h"
#include "ops/cli/verbs.h"

namespace tutti::cli {

namespace {

struct DoctorOptions {
  bool machine = false;
  bool cluster = false;
};

int examine(const DoctorOptions& options, const Session& session) {
  const bool all = options.machine == options.cluster;
  std::vector<Finding> findings;
  if (all || options.machine) findings = examine_machine(default_state_folder());
  if (all || options.cluster) {
    Connection connection;
    connection.api().set_patience(std::chrono::milliseconds(0));
    const bool expected = options.cluster || find_cluster().ok();
    for (Finding& finding :
         examine_cluster(connection.api(), expected ? Expected::cluster : Expected::nothing)) {
      findings.push_back(std::move(finding));
    }
  }
  const Paint paint = session.out_is_terminal ? Paint::coloured : Paint::plain;
  print(session.json() ? json_line(findings_json(findings)) : findings_page(findings, paint));
  return any_problem(findings) ? kRefused : kDone;
}

}  // namespace

Action declare_doctor(Arguments& arguments) {
  auto options = std::make_shared<DoctorOptions>();
  arguments.flag("--machine", options->machine, "only this machine");
  arguments.flag("--cluster", options->cluster, "only the cluster");
  arguments.epilogue(
      "Ends with 5 if there is a problem, else with 0; notes are no problems. A cluster that does "
      "not\n"
      "answer is a problem with --cluster, and where $TUTTI_URL or the state folder names one.");
  return [options](Session& session) { return examine(*options, session); };
}

}  // namespace tutti::cli

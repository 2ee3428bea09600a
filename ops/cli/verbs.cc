#include "ops/cli/verbs.h"

#include <fmt/core.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>

#include "protocol/spec/parse.h"

namespace tutti::cli {

namespace {

constexpr std::string_view kCluster = "A cluster";
constexpr std::string_view kJobs = "Jobs";
constexpr std::string_view kNodes = "Nodes and faults";
constexpr std::string_view kCare = "Keeping it well";
constexpr std::string_view kModels = "Models and text, without a cluster";
constexpr std::string_view kSpecs = "Specs";

constexpr Verb kVerbs[] = {
    {"up", kCluster, "[--slots N] [--state DIR] [--port P]",
     "run a whole cluster on this machine, in the foreground", declare_up},
    {"coordinator", kCluster, "--config F", "run a coordinator", declare_coordinator},
    {"worker", kCluster, "--config F", "run a worker", declare_worker},

    {"submit", kJobs, "F.yaml [--set a.b=c]... [--follow] [--wait]", "submit a job; prints its id",
     declare_submit},
    {"plan", kJobs, "F.yaml [--set a.b=c]...",
     "what would become of a job if it were submitted now", declare_plan},
    {"jobs", kJobs, "[--state S,...] [--owner U] [--last N]", "list jobs", declare_jobs},
    {"job", kJobs, "JOB", "show one job: state, recoveries, checkpoints, spec", declare_job},
    {"explain", kJobs, "JOB", "why a job waits, who holds what it needs, and the earliest start",
     declare_explain},
    {"steps", kJobs, "JOB [-f]", "step records: loss, speed, hash of the weights", declare_steps},
    {"logs", kJobs, "JOB [-f] [--rank R]", "output of a job's ranks", declare_logs},
    {"events", kJobs, "[JOB] [-f] [--kind K] [--since N|10m]", "what happened", declare_events},
    {"wait", kJobs, "JOB [-f] [--timeout 60s]", "wait for a job's end; ends with its exit code",
     declare_wait},
    {"cancel", kJobs, "JOB [--reason T] [--save]", "end a job", declare_cancel},
    {"verify", kJobs, "JOB --steps A:B", "replay steps on one rank and compare the weights",
     declare_verify},

    {"nodes", kNodes, "", "list nodes", declare_nodes},
    {"node", kNodes, "NODE", "show one node", declare_node},
    {"drain", kNodes, "NODE --reason T [--deadline 10m]", "give a node no new work, and empty it",
     declare_drain},
    {"undrain", kNodes, "NODE", "take a node back, also from quarantine", declare_undrain},
    {"worker restart", kNodes, "[--state DIR]",
     "a new binary for this machine's worker; its ranks go on", declare_worker_restart},
    {"fault run", kNodes, "FILE [--seed N] [--plan]",
     "faults by a schedule from a seed, and what held (needs --faults)", declare_fault_run},
    {"fault kill-rank", kNodes, "JOB RANK", "kill a rank's process (needs --faults)",
     declare_kill_rank},
    {"fault stop-rank", kNodes, "JOB RANK", "freeze a rank's process", declare_stop_rank},
    {"fault continue-rank", kNodes, "JOB RANK", "let it go on", declare_continue_rank},
    {"fault cut", kNodes, "NODE [--for 10s]", "cut a node off from the coordinator", declare_cut},
    {"fault slow-disk", kNodes, "NODE [--for 10s] [--delay D]", "slow a node's spools down",
     declare_slow_disk},
    {"fault heal", kNodes, "NODE", "end a node's faults before their time", declare_heal},
    {"fault kill-worker", kNodes, "", "kill the worker of `tutti up --faults`",
     declare_kill_worker},
    {"fault kill-coordinator", kNodes, "", "kill the coordinator of `tutti up --faults`",
     declare_kill_coordinator},

    {"top", kCare, "[--every 2s]", "jobs, nodes and rates as they go", declare_top},
    {"doctor", kCare, "[--machine] [--cluster]", "what is wrong here, and what to do",
     declare_doctor},
    {"check", kCare, "[--compute | --gpu | --disk] [--deadline SECONDS]",
     "what this machine's cores and memory, its GPUs, or its disks, can do", nullptr, pass_check},
    {"token create", kCare, "USER [--role R] [--expires 30d] [--join]",
     "a token for the API, or to let workers in", declare_token_create},
    {"token revoke", kCare, "TOKEN", "end a token at once", declare_token_revoke},
    {"token list", kCare, "", "list tokens and workers' keys", declare_token_list},
    {"keys rotate", kCare, "[--overlap 10m]", "new keys for the workers' links, with no restart",
     declare_keys_rotate},
    {"audit", kCare, "[--since N]", "who changed what, and from where", declare_audit},
    {"ledger backup", kCare, "FILE", "copy the coordinator's memory while it goes on",
     declare_ledger_backup},
    {"ledger restore", kCare, "FILE [--state DIR]", "put a backup back", declare_ledger_restore},
    {"ledger check", kCare, "FILE", "read a backup through", declare_ledger_check},

    {"generate", kModels, "MODEL ...", "continue a text: a model directory or a served model",
     nullptr, pass_generate},
    {"score", kModels, "MODEL ...", "log-probabilities and perplexity", nullptr, pass_to_rank},
    {"tokenize", kModels, "...", "text to token files and back", nullptr, pass_to_rank},
    {"tokenizer train", kModels, "...", "make a tokenizer from text", nullptr, pass_to_rank},

    {"spec check", kSpecs, "F.yaml [--set a.b=c]...", "check a spec and print it resolved",
     declare_spec_check},
    {"memory", kSpecs, "F.yaml [--set a.b=c]...", "what a training job takes of each GPU", nullptr,
     pass_to_rank},
    {"spec keys", kSpecs, "[SECTION]", "all keys of a spec, with defaults", declare_spec_keys},
};

std::string overview() {
  std::string text =
      "Tutti trains and serves transformer models on whatever machines you have.\n"
      "\n"
      "  tutti up                          a cluster on this machine\n"
      "  tutti submit job.yaml --follow    in another terminal\n";
  std::string_view group;
  for (const Verb& verb : verbs()) {
    if (verb.group != group) text += fmt::format("\n{}:\n", verb.group);
    group = verb.group;
    text +=
        fmt::format("  {:<52}  {}\n", fmt::format("{} {}", verb.name, verb.usage), verb.summary);
  }
  return text +
         "\n`tutti VERB --help` explains one verb. Every verb takes -o json for scripts.\n"
         "Exit codes: 0 done; 1 the job failed; 2 usage or a bad spec; 3 infrastructure; 4 Tutti's "
         "own\n"
         "error; 5 refused. The cluster is found by $TUTTI_URL and $TUTTI_TOKEN, else in "
         "$TUTTI_STATE.\n";
}

// The verb that the words begin with; two-word names first.
const Verb* find_verb(const std::vector<std::string>& words) {
  if (words.empty()) return nullptr;
  const std::string two = words.size() > 1 ? words[0] + ' ' + words[1] : words[0];
  for (const std::string& name : {two, words[0]}) {
    for (const Verb& verb : verbs()) {
      if (verb.name == name) return &verb;
    }
  }
  return nullptr;
}

int unknown_verb(const std::vector<std::string>& words) {
  std::vector<std::string_view> names;
  std::string inside;  // "kill-rank, kill-worker, ..." where the first word is one of a group
  for (const Verb& verb : verbs()) {
    names.push_back(verb.name);
    if (verb.name.substr(0, words[0].size() + 1) == words[0] + ' ') {
      inside += (inside.empty() ? "" : ", ") + std::string(verb.name.substr(words[0].size() + 1));
    }
  }
  const std::string typed = words[0] + (inside.empty() || words.size() < 2 ? "" : ' ' + words[1]);
  if (!inside.empty() && words.size() == 2 && (words[1] == "--help" || words[1] == "-h")) {
    for (const Verb& verb : verbs()) {
      if (!verb.name.starts_with(words[0] + ' ')) continue;
      print(
          fmt::format("  {:<44}  {}\n", fmt::format("{} {}", verb.name, verb.usage), verb.summary));
    }
    return kDone;
  }
  if (!inside.empty() && words.size() < 2) {
    return fail(kUsage, fmt::format("tutti {} needs one of: {}", words[0], inside));
  }
  const std::string_view near = spec::nearest_word(typed, names);
  return fail(kUsage, fmt::format("unknown verb \"{}\"; {}", typed,
                                  near.empty() ? "`tutti help` lists them"
                                               : fmt::format("did you mean \"{}\"?", near)));
}

}  // namespace

int run_declared(const Verb& verb, const std::vector<std::string>& words, Session& session) {
  Arguments arguments(verb.name, verb.summary);
  std::string output = "text";
  const Action action = verb.declare(arguments);
  arguments.option("-o,--output", output, "text or json");
  const Result<Arguments::Outcome> parsed = arguments.parse(words);
  if (!parsed) {
    return fail(kUsage,
                fmt::format("{} (see `tutti {} --help`)", parsed.error().message, verb.name));
  }
  if (*parsed == Arguments::Outcome::help) {
    const std::string_view examples = examples_of(verb.name);
    print(arguments.help() + (examples.empty() ? "" : fmt::format("\nExamples:\n{}", examples)));
    return kDone;
  }
  if (output != "text" && output != "json") {
    return fail(kUsage, fmt::format("-o must be text or json, not \"{}\"", output));
  }
  session.output = output == "json" ? OutputForm::json : OutputForm::text;
  return action(session);
}

std::span<const Verb> verbs() { return kVerbs; }

int run_verbs(const std::vector<std::string>& given) {
  ::signal(SIGPIPE, SIG_IGN);
  std::vector<std::string> words = given;
  Session session;
  session.out_is_terminal = ::isatty(STDOUT_FILENO) == 1;
  session.err_is_terminal = ::isatty(STDERR_FILENO) == 1;
  if (words.empty() || words[0] == "--help" || words[0] == "-h" ||
      words == std::vector<std::string>{"help"}) {
    print(overview());
    return words.empty() ? kUsage : kDone;
  }
  if (words[0] == "--version" || words[0] == "version") {
    print("tutti " TUTTI_VERSION "\n");
    return kDone;
  }
  if (words[0] == "help") {  // `tutti help spec` lists keys, `tutti help VERB` explains it
    words.erase(words.begin());
    if (words[0] == "spec" && words.size() == 1)
      words.push_back("keys");
    else
      words.push_back("--help");
  }
  const Verb* verb = find_verb(words);
  if (verb == nullptr) return unknown_verb(words);
  if (verb->pass != nullptr) return verb->pass(words, session);
  const bool two = verb->name.find(' ') != std::string_view::npos;
  words.erase(words.begin(), words.begin() + (two ? 2 : 1));
  return run_declared(*verb, words, session);
}

}  // namespace tutti::cli

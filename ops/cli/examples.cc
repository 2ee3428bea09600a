// Examples of each verb, for its `--help`. One row a verb; a test looks that each has one.
#include <utility>

#include "ops/cli/verbs.h"

namespace tutti::cli {

namespace {

constexpr std::pair<std::string_view, std::string_view> kExamples[] = {
    {"up", "  tutti up --slots 2\n  TUTTI_STATE=/srv/tutti tutti up --port 8080\n"},
    {"coordinator", "  tutti coordinator --config /etc/tutti/coordinator.yaml\n"},
    {"worker", "  tutti worker --config /etc/tutti/worker.yaml\n"},
    {"submit",
     "  tutti submit job.yaml --follow\n"
     "  tutti submit job.yaml --set train.steps=10 --key nightly-3 --wait\n"},
    {"plan", "  tutti plan job.yaml\n  tutti plan job.yaml --set resources.ranks=8 -o json\n"},
    {"jobs",
     "  tutti jobs\n  tutti jobs --state queued,running --owner ada\n"
     "  tutti jobs --last 20 -o json | jq '.jobs[].state'\n"},
    {"job", "  tutti job 7\n  tutti job kjv-small\n"},
    {"explain", "  tutti explain 7\n  tutti explain kjv-small -o json\n"},
    {"steps", "  tutti steps 7 -f\n  tutti steps 7 --since 400 -o json\n"},
    {"logs", "  tutti logs 7 -f --rank 0\n  tutti logs 7 --cursor\n"},
    {"events", "  tutti events -f\n  tutti events 7 --kind rank_lost,recovered --since 1h\n"},
    {"wait", "  tutti wait 7 --timeout 10m\n  tutti wait kjv-small -f\n"},
    {"cancel", "  tutti cancel 7 --reason \"wrong data\"\n  tutti cancel 7 --save\n"},
    {"verify", "  tutti verify 7 --steps 40:60\n"},
    {"nodes", "  tutti nodes\n"},
    {"node", "  tutti node gpu-3\n"},
    {"drain", "  tutti drain gpu-3 --reason \"new memory\" --deadline 10m\n"},
    {"undrain", "  tutti undrain gpu-3\n"},
    {"worker restart",
     "  tutti worker restart\n  tutti worker restart --state /srv/tutti/worker\n"},
    {"fault run",
     "  tutti fault run ops/examples/faults.yaml\n"
     "  tutti fault run ops/examples/faults.yaml --seed 8 --plan\n"},
    {"fault kill-rank", "  tutti fault kill-rank 7 1\n  tutti fault kill-rank kjv-small 0\n"},
    {"fault stop-rank", "  tutti fault stop-rank 7 1\n"},
    {"fault continue-rank", "  tutti fault continue-rank 7 1\n"},
    {"fault cut", "  tutti fault cut gpu-3 --for 2s\n"},
    {"fault slow-disk", "  tutti fault slow-disk gpu-3 --delay 500ms --for 1m\n"},
    {"fault heal", "  tutti fault heal gpu-3\n"},
    {"fault kill-worker", "  tutti fault kill-worker\n"},
    {"fault kill-coordinator", "  tutti fault kill-coordinator\n"},
    {"top", "  tutti top\n  tutti top -o json --count 1\n"},
    {"doctor", "  tutti doctor\n  tutti doctor --machine -o json\n"},
    {"token create",
     "  tutti token create ann --role user --expires 30d\n"
     "  tutti token create rack-7 --join --expires 1h\n"},
    {"token revoke", "  tutti token revoke 3\n"},
    {"token list", "  tutti token list\n"},
    {"keys rotate", "  tutti keys rotate --overlap 1h\n"},
    {"audit", "  tutti audit\n  tutti audit --since 120 -o json\n"},
    {"ledger backup", "  tutti ledger backup /backups/tutti-monday\n"},
    {"ledger restore", "  tutti ledger restore /backups/tutti-monday --state /srv/tutti\n"},
    {"ledger check", "  tutti ledger check /backups/tutti-monday\n"},
    {"spec check", "  tutti spec check job.yaml --set train.steps=10\n"},
    {"spec keys", "  tutti spec keys\n  tutti spec keys train\n"},
};

}  // namespace

std::string_view examples_of(std::string_view verb) {
  for (const auto& [name, text] : kExamples) {
    if (name == verb) return text;
  }
  return "";
}

}  // namespace tutti::cli

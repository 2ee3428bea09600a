// A gang of PyTorch ranks, unchanged, as a `run` job: skipped, and said so, where torch is missing.
#include <catch2/catch.hpp>

#include <cstdlib>
#include <string>

#include "tests/support/cluster.h"
#include "tests/support/skip.h"

using namespace tutti;
using test::Cluster;

namespace {

// $TUTTI_TORCH_PYTHON, else python3 of PATH; empty if it has no torch.
std::string python_with_torch() {
  const char* given = std::getenv("TUTTI_TORCH_PYTHON");
  const std::string python = given != nullptr ? given : "python3";
  const std::string probe = python + " -c 'import torch.distributed' > /dev/null 2>&1";
  return std::system(probe.c_str()) == 0 ? python : std::string();
}

// Rank 1 of the first generation is killed in the middle; the loss is the whole run's.
constexpr const char* kScript = R"(
import os, signal, torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group("gloo")
rank, first = dist.get_rank(), os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
size, generation = dist.get_world_size(), os.environ["TUTTI_GENERATION"]
print("rank", rank, "of", size, "generation", generation, flush=True)
torch.manual_seed(1)
model = DistributedDataParallel(torch.nn.Linear(16, 4))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(20):
    optimizer.zero_grad()
    loss = model(torch.full((8, 16), float(rank + 1))).square().mean()
    loss.backward()
    optimizer.step()
    if first and rank == 1 and step == 10:
        os.kill(os.getpid(), signal.SIGKILL)
print("rank", rank, "done", flush=True)
dist.destroy_process_group()
)";

}  // namespace

TEST_CASE("cluster: a gang of PyTorch ranks runs unchanged, and again as a gang after a kill -9") {
  const std::string python = python_with_torch();
  if (python.empty()) {
    return test::skip("no python with torch; name one in TUTTI_TORCH_PYTHON");
  }
  Cluster cluster;
  const auto script = cluster.files() / "train.py";
  REQUIRE(write_file_atomically(script, kScript));
  const auto job = cluster.submit("name: ddp\nkind: run\ncommand: [" + python + ", " +
                                  script.string() + "]\nresources: {ranks: {min: 2, max: 2}}\n");
  CHECK(cluster.wait(job) == 0);
  CHECK(cluster.job(job).at("generation").to_number<int>() == 2);
  const std::string log = cluster.tutti({"logs", std::to_string(job)}).out;
  for (const char* line :
       {"rank 0 of 2 generation 1", "rank 1 of 2 generation 1", "rank 0 of 2 generation 2",
        "rank 1 of 2 generation 2", "rank 0 done", "rank 1 done"}) {
    INFO(line);
    CHECK(log.find(line) != std::string::npos);
  }
  CHECK(cluster.stop() == 0);
}

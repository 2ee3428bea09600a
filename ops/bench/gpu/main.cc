// gpu_bench [--json] [--streams]: the table of the GPU path on this machine's first GPU; 77 without
// one.
#include <fmt/core.h>

#include <cstdio>
#include <string_view>

#include "ops/bench/gpu/cases.h"

int main(int count, char** values) {
  using namespace tutti;
  bool json = false;
  bool streams = false;
  for (int i = 1; i < count; ++i) {
    json = json || std::string_view(values[i]) == "--json";
    streams = streams || std::string_view(values[i]) == "--streams";
  }
  auto device = kernels::cuda::CudaDevice::open({.inputs = kernels::cuda::Products::Inputs::bf16});
  if (!device) {
    fmt::print(stderr, "gpu_bench: {}\n", device.error().message);
    return 77;
  }
  if (streams) {
    const bool overlap = bench::gpu::streams_overlap();
    fmt::print("two streams {}\n", overlap ? "overlap" : "run one after the other");
    return overlap ? 0 : 1;
  }
  for (const auto& rows :
       {bench::gpu::kernel_rows(**device), bench::gpu::training_rows(**device),
        bench::gpu::quantised_rows(**device), bench::gpu::serving_rows(**device)}) {
    for (const bench::gpu::Row& row : rows) {
      if (json) {
        fmt::print(
            "{{\"bench\": \"gpu\", \"case\": \"{}\", \"unit\": \"{}\", \"min\": {}, \"p50\": {}, "
            "\"p99\": {}, "
            "\"n\": {}, \"share\": {:.4f}, \"of\": \"{}\", \"machine\": \"{}\"}}\n",
            row.name, row.unit, row.best, row.median, row.worst, row.runs, row.share, row.ceiling,
            (*device)->name());
      } else {
        fmt::print("{:40} {:12.5g} {:6}  {:.2f} of {}\n", row.name, row.median, row.unit, row.share,
                   row.ceiling);
      }
    }
  }
  return 0;
}

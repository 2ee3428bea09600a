#include "ops/bench/peers/kernels_peers.h"

#include "ops/bench/peers/peer_process.h"

#ifdef TUTTI_BENCH_BLIS
#include <blis.h>
#include <cblas.h>
#endif
#ifdef TUTTI_BENCH_ONEDNN
#include <dnnl.h>

#include <dnnl.hpp>
#include <memory>
#include <unordered_map>
#endif

namespace tutti::bench {

namespace {

#ifdef TUTTI_BENCH_BLIS
void blis_product(const PeerProduct& p) {
  const auto m = static_cast<int>(p.m);
  const auto n = static_cast<int>(p.n);
  const auto k = static_cast<int>(p.k);
  const bool left_turned = p.kind == ProductKind::tn;
  const bool right_turned = p.kind == ProductKind::nt;
  cblas_sgemm(CblasRowMajor, left_turned ? CblasTrans : CblasNoTrans,
              right_turned ? CblasTrans : CblasNoTrans, m, n, k, 1.0F, p.left, left_turned ? m : k,
              p.right, right_turned ? k : n, 0.0F, p.output, n);
}
#endif

#ifdef TUTTI_BENCH_ONEDNN
void onednn_product(const PeerProduct& p) {
  const bool left_turned = p.kind == ProductKind::tn;
  const bool right_turned = p.kind == ProductKind::nt;
  dnnl_sgemm(left_turned ? 'T' : 'N', right_turned ? 'T' : 'N', p.m, p.n, p.k, 1.0F, p.left,
             left_turned ? p.m : p.k, p.right, right_turned ? p.k : p.n, 0.0F, p.output, p.n);
}

using dnnl::memory;

memory::desc matrix(kernels::Index rows, kernels::Index columns, memory::data_type type,
                    memory::format_tag tag) {
  return {{rows, columns}, type, tag};
}

struct DnnlOperands {
  memory::desc left, right, output;
  const void* left_data = nullptr;
  const void* right_data = nullptr;
  void* output_data = nullptr;
  bool reorder_right = false;
  std::span<const float> scales = {};  // of output columns; empty: none
};

// oneDNN throws where it has no such product on this CPU.
std::function<void()> prepared(const DnnlOperands& o) try {
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  dnnl::primitive_attr attributes;
  if (!o.scales.empty()) attributes.set_output_scales(2, {o.scales.begin(), o.scales.end()});
  memory::desc right = o.right;
  if (o.reorder_right) right.data.format_kind = dnnl_format_kind_any;
  const dnnl::matmul::primitive_desc form({o.left, right, o.output}, attributes, engine);
  // Operands are only read.
  memory weight(o.right, engine, const_cast<void*>(o.right_data));
  if (form.weights_desc() != o.right) {
    memory image(form.weights_desc(), engine);
    dnnl::reorder(weight, image).execute(stream, weight, image);
    stream.wait();
    weight = image;
  }
  const std::unordered_map<int, memory> arguments = {
      {DNNL_ARG_SRC, memory(o.left, engine, const_cast<void*>(o.left_data))},
      {DNNL_ARG_WEIGHTS, weight},
      {DNNL_ARG_DST, memory(o.output, engine, o.output_data)}};
  return [product = dnnl::matmul(form), stream, arguments]() mutable {
    product.execute(stream, arguments);
    stream.wait();
  };
} catch (const dnnl::error&) {
  return {};
}

// Operands as of PeerProduct, of one type; the output is f32.
template <class Product>
std::function<void()> matmul_of(const Product& p, memory::data_type type, RightSide right_side) {
  constexpr auto kAsIs = memory::format_tag::ab;
  constexpr auto kTurned = memory::format_tag::ba;
  return prepared({.left = matrix(p.m, p.k, type, p.kind == ProductKind::tn ? kTurned : kAsIs),
                   .right = matrix(p.k, p.n, type, p.kind == ProductKind::nt ? kTurned : kAsIs),
                   .output = matrix(p.m, p.n, memory::data_type::f32, kAsIs),
                   .left_data = p.left,
                   .right_data = p.right,
                   .output_data = p.output,
                   .reorder_right = right_side == RightSide::image});
}
#endif

}  // namespace

std::vector<Peer> product_peers() {
  std::vector<Peer> peers;
#ifdef TUTTI_BENCH_BLIS
  peers.push_back({"blis", blis_product});
#endif
#ifdef TUTTI_BENCH_ONEDNN
  peers.push_back({"onednn", onednn_product});
#endif
  return peers;
}

bool all_peers_there() {
  constexpr std::size_t kLibraries = 2;
  return product_peers().size() == kLibraries && has_torch_peer();
}

std::string blis_of(bool avx512) {
#ifdef TUTTI_BENCH_BLIS
  return std::to_string(static_cast<int>(avx512 ? BLIS_ARCH_SKX : BLIS_ARCH_HASWELL));
#else
  return {};
#endif
}

#ifdef TUTTI_BENCH_ONEDNN

std::function<void()> onednn_matmul(const PeerProduct& p, RightSide right_side) {
  return matmul_of(p, memory::data_type::f32, right_side);
}

std::function<void()> onednn_batched(const PeerProduct& p, kernels::Index count) {
  const auto stack = [count](kernels::Index rows, kernels::Index columns, bool turned) {
    const memory::dims steps = {rows * columns, turned ? 1 : columns, turned ? rows : 1};
    return memory::desc({count, rows, columns}, memory::data_type::f32, steps);
  };
  return prepared({.left = stack(p.m, p.k, p.kind == ProductKind::tn),
                   .right = stack(p.k, p.n, p.kind == ProductKind::nt),
                   .output = stack(p.m, p.n, false),
                   .left_data = p.left,
                   .right_data = p.right,
                   .output_data = p.output});
}

std::function<void()> onednn_bf16_product(const PeerBf16Product& p) {
  return matmul_of(p, memory::data_type::bf16, p.right_side);
}

std::function<void()> onednn_int8_product(const PeerInt8Product& p) {
  constexpr auto kType = memory::data_type::s8;
  return prepared({.left = matrix(p.m, p.k, kType, memory::format_tag::ab),
                   .right = matrix(p.k, p.n, kType, memory::format_tag::ba),
                   .output = matrix(p.m, p.n, memory::data_type::f32, memory::format_tag::ab),
                   .left_data = p.left,
                   .right_data = p.right,
                   .output_data = p.output,
                   .reorder_right = true,
                   .scales = p.scales});
}

#else

std::function<void()> onednn_matmul(const PeerProduct&, RightSide) { return {}; }
std::function<void()> onednn_batched(const PeerProduct&, kernels::Index) { return {}; }
std::function<void()> onednn_bf16_product(const PeerBf16Product&) { return {}; }
std::function<void()> onednn_int8_product(const PeerInt8Product&) { return {}; }

#endif

}  // namespace tutti::bench

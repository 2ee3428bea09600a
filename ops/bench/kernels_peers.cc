#include "ops/bench/kernels_peers.h"

#ifdef TUTTI_BENCH_BLIS
#include <cblas.h>
#endif
#ifdef TUTTI_BENCH_ONEDNN
#include <dnnl.h>
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

}  // namespace tutti::bench

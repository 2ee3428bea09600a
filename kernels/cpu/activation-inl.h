// The activations of activation.h on sixteen lanes: what their ops and the ends of products share,
// so that a fused end has the bits of its op.
#if defined(TUTTI_ACTIVATION_INL) == defined(HWY_TARGET_TOGGLE)
#ifdef TUTTI_ACTIVATION_INL
#undef TUTTI_ACTIVATION_INL
#else
#define TUTTI_ACTIVATION_INL
#endif

#include "kernels/cpu/functions-inl.h"
#include "kernels/ops/elementwise/activation.h"

HWY_BEFORE_NAMESPACE();
namespace tutti::kernels::HWY_NAMESPACE {

// f(x) and its derivative.
template <SomeLanes L>
struct ValueSlope {
  L value, slope;
};

struct Gelu {
  template <SomeLanes L>
  static HWY_INLINE L share(const L& x) {
    // Halving is exact, so this is the half of 1 + erf.
    return fma(L(splat(0.5F)), erf(x * splat(0.70710678F)), splat(0.5F));
  }
  template <SomeLanes L>
  static HWY_INLINE L value(const L& x) {
    return x * share(x);
  }
  template <SomeLanes L>
  static HWY_INLINE ValueSlope<L> both(const L& x) {
    const L part = share(x);
    const L density = splat(0.39894228F) * exp_of_bounded(splat(-0.5F) * (x * x));
    return {x * part, fma(x, density, part)};
  }
};

// (1 + tanh u) / 2 = 1 / (1 + exp(-2u)).
struct GeluTanh {
  template <SomeLanes L>
  static HWY_INLINE L share(const L& x) {
    const L u = x * fma(splat(0.07135481F), x * x, splat(1.5957691F));  // 2u
    const Lanes one = splat(1.0F);
    return one / (one + exp(zero() - u));
  }
  template <SomeLanes L>
  static HWY_INLINE L value(const L& x) {
    return x * share(x);
  }
  template <SomeLanes L>
  static HWY_INLINE ValueSlope<L> both(const L& x) {
    const L part = share(x);
    const L du = fma(splat(0.21406444F), x * x, splat(1.5957691F));
    const L rest = part * (splat(1.0F) - part);
    return {x * part, fma(x * rest, du, part)};
  }
};

struct Silu {
  template <SomeLanes L>
  static HWY_INLINE L share(const L& x) {
    const Lanes one = splat(1.0F);
    return one / (one + exp(zero() - x));
  }
  template <SomeLanes L>
  static HWY_INLINE L value(const L& x) {
    return x * share(x);
  }
  template <SomeLanes L>
  static HWY_INLINE ValueSlope<L> both(const L& x) {
    const L part = share(x);
    return {x * part, part * fma(x, splat(1.0F) - part, splat(1.0F))};
  }
};

struct Relu {
  template <SomeLanes L>
  static HWY_INLINE L value(const L& x) {
    return max(x, zero());
  }
  template <SomeLanes L>
  static HWY_INLINE ValueSlope<L> both(const L& x) {
    return {value(x), select_less(L(zero()), x, splat(1.0F), zero())};
  }
};

template <class Run>
HWY_INLINE void with_activation(Activation kind, const Run& run) {
  switch (kind) {
    case Activation::gelu: return run(Gelu{});
    case Activation::gelu_tanh: return run(GeluTanh{});
    case Activation::silu: return run(Silu{});
    case Activation::relu: return run(Relu{});
  }
}

}  // namespace tutti::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif

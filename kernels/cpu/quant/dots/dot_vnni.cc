// Integer products with AVX512-VNNI. Compiled for that instruction set and called only where the
// machine has it.
#include "kernels/cpu/quant/dots/group_dot.h"
#include "kernels/cpu/quant/dots/vnni.h"

namespace tutti::kernels {

GroupDot vnni_dot(WeightFormat format) { return dot_of<Vnni>(format); }

}  // namespace tutti::kernels

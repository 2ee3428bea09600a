// The product of rounded rows with a weight of integer codes, whoever rounded them.
#pragma once

#include "kernels/cpu/quant/activations.h"

namespace tutti::kernels {

// Checked arguments, an fp32 output and inputs above zero; of `left` the rows are read, not the
// values.
void run_integer_product(const OpContext& ctx, const QuantisedProduct& args, const Int8Rows& x);

// Inputs of int8_channel: its sum of int8 products stays within int32.
inline constexpr Index kChannelInputsMax = 131072;

}  // namespace tutti::kernels

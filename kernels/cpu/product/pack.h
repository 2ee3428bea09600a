// Copies the operands of a product into the layouts that the tile reads: right panels and left
// blocks.
//
// A right panel is [depth][width]: for each k the `width` outputs next to each other, zeros where
// columns end. Data movement only, so it cannot change a bit.
#pragma once

#include "kernels/tensor/matrix.h"

namespace tutti::kernels {

// Source [depth][columns] (k is the row): panel of columns [0, columns), columns <= width.
void pack_panel_straight(ConstMatrix source, Index width, float* panel);

// Source [columns][depth] (k lies side by side, as in a weight [out, in]).
void pack_panel_transposed(ConstMatrix source, Index width, float* panel);

// The same of an image that is made once and read later: rows of sixteen, written past the caches.
// `panel` is 64-byte aligned, the width a multiple of sixteen.
void pack_image_panel(ConstMatrix source, Index width, float* panel);

// to[k * to_stride + n] = source[n][k].
void transpose_into(ConstMatrix source, float* to, Index to_stride);

// Left tiles [columns / height][depth][height] of a source whose rows are k, each in one stream; of
// the last, what is beyond the source stays as it is.
void copy_tiles(ConstMatrix source, Index height, float* to);

// Rows of `source`, one after the other at `stride`.
void copy_rows(ConstMatrix source, float* to, Index stride);

}  // namespace tutti::kernels

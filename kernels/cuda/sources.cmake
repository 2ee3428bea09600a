# What the GPU path is made of: built by nvcc and the host compiler where CUDA is found, and by the host compiler against
# the emulation everywhere (tests/emulation).
set(TUTTI_CUDA_SOURCES
  attention/attention_backward.cu
  attention/attention_bf16.cu
  attention/attention_decode.cu
  attention/attention_forward.cu
  attention/gradients_bf16.cu
  attention/pages.cu
  ceilings/device_measures.cc
  ceilings/exchange.cc
  ceilings/words.cu
  convert.cu
  device.cc
  elementwise/activation.cu
  elementwise/dropout.cu
  elementwise/norms.cu
  elementwise/product_ends.cu
  elementwise/softmax.cu
  loss.cu
  open_device.cc
  optimizers/adafactor.cu
  optimizers/adamw.cu
  optimizers/adamw8.cu
  optimizers/elementwise.cu
  optimizers/muon.cu
  product_choices.cc
  products.cc
  rows.cu
  decode/quantised.cu
  decode/quantised_nn.cu
  runtime.cc
  decode/sampling.cu
  scratch.cc
  graphs/step_graphs.cc
  tokens.cu
  ../collective/nccl_group.cc)
list(TRANSFORM TUTTI_CUDA_SOURCES PREPEND ${CMAKE_CURRENT_LIST_DIR}/)

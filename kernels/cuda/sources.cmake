# What the GPU path is made of: built by nvcc and the host compiler where CUDA is found, and by the host compiler against
# the emulation everywhere (tests/emulation).
set(TUTTI_CUDA_SOURCES
  attention_backward.cu
  attention_forward.cu
  device.cc
  loss.cu
  optimizer.cu
  products.cc
  rows.cu
  runtime.cc
  scratch.cc
  tokens.cu)
list(TRANSFORM TUTTI_CUDA_SOURCES PREPEND ${CMAKE_CURRENT_LIST_DIR}/)

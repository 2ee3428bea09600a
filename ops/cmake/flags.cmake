# One interface target carries every flag, so that a target either has all of them or is not ours.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo)
endif()
set(CMAKE_CXX_FLAGS_RELEASE "-O2")
set(CMAKE_CXX_FLAGS_DEBUG "-Og -g1")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O2 -g1")
set(TUTTI_SANITIZE "" CACHE STRING "sanitizers, as -fsanitize takes them")
# The control plane's folders compile a dozen files as one (CMAKE_UNITY_BUILD) in all presets but dev: most of their time
# is the reading of Boost's headers, which whoever builds once need not do a hundred times. So names in the nameless
# namespaces of one folder differ.
option(TUTTI_UNITY "compile the control plane's files by the dozen" OFF)
set(CMAKE_UNITY_BUILD_BATCH_SIZE 12)

if(NOT CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(TUTTI_CCACHE ccache)
  if(TUTTI_CCACHE)
    set(CMAKE_CXX_COMPILER_LAUNCHER ${TUTTI_CCACHE})
  endif()
endif()

add_library(tutti_flags INTERFACE)
target_include_directories(tutti_flags INTERFACE ${CMAKE_SOURCE_DIR})
# x86-64-v3: every CPU with FMA (DESIGN numerics). No contraction: a fused multiply-add is written where it is meant, so
# that the bits of a result do not depend on the compiler's mood.
target_compile_options(tutti_flags INTERFACE
  -march=x86-64-v3 -ffp-contract=off -fno-strict-aliasing
  -Wall -Wextra -Wpedantic -Wshadow -Wconversion)
if(TUTTI_UNITY)
  # A file among others is an included one to the compiler, in which a nameless namespace would be a fault.
  target_compile_options(tutti_flags INTERFACE -Wno-subobject-linkage)
endif()
if(TUTTI_SANITIZE)
  target_compile_options(tutti_flags INTERFACE -fsanitize=${TUTTI_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=undefined)
  target_link_options(tutti_flags INTERFACE -fsanitize=${TUTTI_SANITIZE})
  if(TUTTI_SANITIZE MATCHES thread)
    target_compile_options(tutti_flags INTERFACE -Wno-tsan)
  endif()
endif()
find_program(TUTTI_MOLD mold)
if(TUTTI_MOLD)
  target_link_options(tutti_flags INTERFACE -fuse-ld=mold)
endif()

# The functions that every CMakeLists.txt uses.
#
#   tutti_library(NAME SOURCES a.cc b.cc [LINK other libraries])
#   tutti_test(NAME LABEL unit SOURCES x_test.cc [LINK libraries] [TIMEOUT seconds] [ENVIRONMENT A=b ...])
#
# A library is static and is linked by its name; LINK is public. A test is one Catch2 binary and one ctest entry, with the
# binaries of the build in $TUTTI_BIN; where all of its cases are skipped (tests/support/skip.h) ctest says so. ops/sanitize builds the unit and simulation tests: tutti_sanitized_tests.
#
#   tutti_gpu_program(NAME)
#
# A program of ops/gpu/check: built by the target tutti_gpu_programs, and put by ops/gpu/pack where it finds the libraries
# of the pack and of whatever these need (which only the older kind of path inside a program does).
add_custom_target(tutti_sanitized_tests)
add_custom_target(tutti_gpu_programs)

function(tutti_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINK" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC tutti_flags ${ARG_LINK})
endfunction()

function(tutti_test name)
  cmake_parse_arguments(ARG "" "LABEL;TIMEOUT" "SOURCES;LINK;ENVIRONMENT" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(TUTTI_SANITIZE)
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 4")
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE tutti_flags ${ARG_LINK} tutti_catch_main)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT} SKIP_RETURN_CODE 77
    ENVIRONMENT "TUTTI_BIN=${CMAKE_BINARY_DIR}/bin;TUTTI_CACHE=${CMAKE_BINARY_DIR}/cache;TUTTI_SKIPPED=${CMAKE_BINARY_DIR}/skipped.txt;${ARG_ENVIRONMENT}")
  if(ARG_LABEL MATCHES "unit|simulation")
    add_dependencies(tutti_sanitized_tests ${name})
  endif()
endfunction()

function(tutti_gpu_program name)
  target_link_options(${name} PRIVATE -Wl,--disable-new-dtags)
  set_target_properties(${name} PROPERTIES INSTALL_RPATH "$ORIGIN/../lib")
  install(TARGETS ${name} RUNTIME DESTINATION bin COMPONENT gpu)
  add_dependencies(tutti_gpu_programs ${name})
endfunction()

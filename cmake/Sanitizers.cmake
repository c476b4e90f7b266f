# QUORATE_SANITIZER: empty, `address` (address, undefined behaviour and leaks) or `thread`.
# Everything that we compile is instrumented, generated code too; Debian's libraries are not,
# which is why tests/tsan.supp exists.
set(QUORATE_SANITIZER "" CACHE STRING "address, thread or empty")
set(QUORATE_BUILD "custom" CACHE STRING "the preset's name, told to the process tests")

# What every test gets as environment, and what the processes that it starts inherit. One
# variable at most: gtest_discover_tests loses the others. The undefined-behaviour sanitizer needs
# none to stop at its first finding (no-sanitize-recover); the test preset asks it for a stack.
set(QUORATE_TEST_ENVIRONMENT "")

if(QUORATE_SANITIZER STREQUAL "address")
  set(flags -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  set(QUORATE_TEST_ENVIRONMENT
      "ASAN_OPTIONS=detect_leaks=1:halt_on_error=1:detect_stack_use_after_return=1:strict_string_checks=1")
elseif(QUORATE_SANITIZER STREQUAL "thread")
  set(flags -fsanitize=thread -fno-omit-frame-pointer)
  set(QUORATE_TEST_ENVIRONMENT
      "TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:suppressions=${PROJECT_SOURCE_DIR}/tests/tsan.supp")
elseif(NOT QUORATE_SANITIZER STREQUAL "")
  message(FATAL_ERROR "QUORATE_SANITIZER is '${QUORATE_SANITIZER}': use address, thread or nothing")
endif()

if(QUORATE_SANITIZER)
  # GCC 12's flow-based warnings see the instrumentation, not only our code.
  list(APPEND flags -Wno-maybe-uninitialized -Wno-stringop-overflow)
  add_compile_options(${flags})
  add_link_options(${flags})
endif()

# quorate_program(TARGET): what every program needs besides its own sources.
if(QUORATE_SANITIZER STREQUAL "thread")
  add_library(quorate_tsan_edges OBJECT ${PROJECT_SOURCE_DIR}/tests/tsan_edges.cc)
  target_include_directories(quorate_tsan_edges PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_options(quorate_tsan_edges PRIVATE -fno-sanitize=thread)
endif()
function(quorate_program target)
  if(QUORATE_SANITIZER STREQUAL "thread")
    set(map ${PROJECT_SOURCE_DIR}/tests/tsan_edges.map)
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:quorate_tsan_edges>)
    target_link_options(${target} PRIVATE -Wl,--version-script=${map})
    set_property(TARGET ${target} APPEND PROPERTY LINK_DEPENDS ${map})
    target_link_libraries(${target} PRIVATE gRPC::grpc++ absl::synchronization ${CMAKE_DL_LIBS})
  endif()
endfunction()

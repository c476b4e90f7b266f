# The functions that the folders' CMakeLists.txt files are written with.
include(GoogleTest)

# Our warnings; never for generated code.
function(quorate_warnings target)
  target_compile_options(${target} PRIVATE -Wall -Wextra -Werror)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    # GCC bug 105651: a false alarm on std::string's operator+, fixed in 13.
    target_compile_options(${target} PRIVATE -Wno-restrict)
  endif()
  get_target_property(unity ${target} UNITY_BUILD)
  if(unity AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # It takes a .cc that another one includes for a header.
    target_compile_options(${target} PRIVATE -Wno-subobject-linkage)
  endif()
endfunction()

# quorate_library(NAME DEPS...): the library of this folder's *.cc (not of its subfolders);
# header-only as long as there is none. Include paths start at the project's root.
function(quorate_library name)
  file(GLOB sources CONFIGURE_DEPENDS *.cc)
  list(FILTER sources EXCLUDE REGEX "/main\\.cc$")
  if(sources)
    add_library(${name} STATIC ${sources})
    target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR})
    target_link_libraries(${name} PUBLIC ${ARGN})
    quorate_warnings(${name})
  else()
    add_library(${name} INTERFACE)
    target_include_directories(${name} INTERFACE ${PROJECT_SOURCE_DIR})
    target_link_libraries(${name} INTERFACE ${ARGN})
  endif()
endfunction()

# quorate_test(FOLDER DEPS...): the gtest binary `FOLDER_test` of this folder's *.cc and its
# subfolders' (helpers included), each test one ctest test with the label `unit`; nothing as
# long as there is no *_test.cc. The *_benchmark.cc files make `FOLDER_benchmark` where the
# preset builds benchmarks.
# A list ${folder}_one_thread names tests (patterns of GoogleTest) that take long and have one
# thread: the thread sanitizer would see nothing there, the address sanitizer runs them.
function(quorate_test folder)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS *.cc)
  set(benchmarks ${sources})
  list(FILTER sources EXCLUDE REGEX "_benchmark\\.cc$")
  list(FILTER benchmarks INCLUDE REGEX "_benchmark\\.cc$")
  if(sources MATCHES "_test\\.cc(;|$)")
    set(name ${folder}_test)
    add_executable(${name} ${sources})
    if(QUORATE_BUILD STREQUAL "release")
      # Most of what a test costs to compile is in the headers of gRPC and GoogleTest. That each
      # file stands alone shows in the preset debug, which nothing builds by itself.
      set_target_properties(${name} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 8)
      # What is tested is optimised; the sentences of a test need not be.
      target_compile_options(${name} PRIVATE -O1)
    endif()
    target_link_libraries(${name} PRIVATE ${ARGN} GTest::gmock_main)
    quorate_program(${name})
    target_compile_definitions(${name} PRIVATE QUORATE_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
    quorate_warnings(${name})
    set(filter "*")
    if(QUORATE_SANITIZER STREQUAL "thread" AND DEFINED ${folder}_one_thread)
      list(JOIN ${folder}_one_thread ":" filter)
      set(filter "-${filter}")
    endif()
    # Listed when ctest runs, so that a build needs to start none of them.
    gtest_discover_tests(${name}
      TEST_PREFIX ${folder}.
      TEST_FILTER "${filter}"
      WORKING_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}
      NO_PRETTY_VALUES
      DISCOVERY_MODE PRE_TEST
      DISCOVERY_TIMEOUT 60
      PROPERTIES LABELS unit TIMEOUT 300 ENVIRONMENT "${QUORATE_TEST_ENVIRONMENT}")
  endif()
  if(benchmarks AND QUORATE_BENCHMARKS)
    set(name ${folder}_benchmark)
    add_executable(${name} ${benchmarks})
    target_link_libraries(${name} PRIVATE ${ARGN} benchmark::benchmark_main)
    target_compile_definitions(${name} PRIVATE QUORATE_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
    quorate_warnings(${name})
  endif()
endfunction()

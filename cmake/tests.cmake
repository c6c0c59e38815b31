# Unit tests: tests/unit/<room>/test_<noun>.c, one executable each, linked with its room.
# Fuzz targets: tests/fuzz/fuzz_<x>.c; in ordinary builds they replay tests/fuzz/corpus/<x>/.
pkg_check_modules(CMOCKA QUIET IMPORTED_TARGET cmocka)
set(OC_ALL_ROOMS oc_server oc_worker oc_api oc_http oc_ipc oc_engine oc_models oc_vision oc_lm oc_weights oc_kernels oc_image oc_chat oc_hub oc_base)

file(GLOB unit_tests CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/unit/*/test_*.c)
if(CMOCKA_FOUND AND NOT OC_FUZZ)
  foreach(t IN LISTS unit_tests)
    get_filename_component(dir ${t} DIRECTORY)
    get_filename_component(room ${dir} NAME)
    get_filename_component(name ${t} NAME_WE)
    add_executable(${name} ${t})
    target_link_libraries(${name} PRIVATE oc_${room} PkgConfig::CMOCKA m)
    target_compile_definitions(${name} PRIVATE OC_TEST_DIR="${CMAKE_SOURCE_DIR}/tests"
                                               OC_TEST_TMP="${CMAKE_BINARY_DIR}")
    add_test(NAME unit.${room}.${name} COMMAND ${name} WORKING_DIRECTORY ${CMAKE_BINARY_DIR})
  endforeach()
endif()

if(TARGET test_plugin)
  add_library(wrong_plugin MODULE ${CMAKE_SOURCE_DIR}/tests/unit/kernels/wrong_plugin.c)
  target_include_directories(wrong_plugin PRIVATE ${CMAKE_SOURCE_DIR}/src)
  set_target_properties(wrong_plugin PROPERTIES PREFIX "" LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
  add_dependencies(test_plugin wrong_plugin)
endif()

file(GLOB fuzz_targets CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/fuzz/fuzz_*.c)
foreach(t IN LISTS fuzz_targets)
  get_filename_component(name ${t} NAME_WE)
  string(REPLACE "fuzz_" "" corpus ${name})
  if(OC_FUZZ)
    add_executable(${name} ${t})
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  else()
    add_executable(${name} ${t} ${CMAKE_SOURCE_DIR}/tests/fuzz/replay_main.c)
    add_test(NAME fuzz.${corpus} COMMAND ${name} ${CMAKE_SOURCE_DIR}/tests/fuzz/corpus/${corpus})
  endif()
  target_link_libraries(${name} PRIVATE ${OC_ALL_ROOMS})
endforeach()

file(GLOB kernel_tests CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/kernels/*.c)
if(kernel_tests AND NOT OC_FUZZ)
  add_executable(check_kernels ${kernel_tests})
  target_link_libraries(check_kernels PRIVATE oc_kernels oc_base m)
  add_test(NAME kernels.check COMMAND check_kernels)
endif()

include(cmake/cuda_model.cmake)

# The tokenizer's test tool, which tools/check_tokenizer.py drives; it times files too.
if(TARGET oc_chat AND NOT OC_FUZZ)
  add_executable(tok_dump ${CMAKE_SOURCE_DIR}/tests/e2e/tok_dump.c)
  target_link_libraries(tok_dump PRIVATE oc_chat oc_base)
endif()

# The HTTP server alone, which tests/e2e/test_http_strict.py drives.
if(TARGET oc_http AND NOT OC_FUZZ)
  add_executable(http_echo ${CMAKE_SOURCE_DIR}/tests/e2e/http_echo.c)
  target_link_libraries(http_echo PRIVATE oc_http oc_base)
endif()

# End to end: tests/e2e/test_<x>.py run the built command; each case is a line in cmocka's style.
file(GLOB e2e_tests CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/tests/e2e/test_*.py)
if(Python3_FOUND AND TARGET ocellus AND NOT OC_FUZZ)
  # Where the trained model is not in the tree, a random one of the same architecture stands in: these tests are about the
  # command, not about what the model has learned.
  set(e2e_env "")
  set(e2e_slow "")
  if(OC_SANITIZE)
    set(e2e_slow "OCELLUS_SLOW=6") # on all time limits of the server's tests
  endif()
  set(e2e_fixture "")
  if(NOT EXISTS ${CMAKE_SOURCE_DIR}/models/ocellus-tiny-4bit/model.safetensors)
    set(e2e_env "OCELLUS_TEST_MODEL=${CMAKE_BINARY_DIR}/e2e-model")
    set(e2e_fixture e2e_model)
    # Made anew each time: the writer refuses a directory that holds a model.
    add_test(NAME e2e.model COMMAND sh -c "rm -rf \"$2\" && exec \"$0\" \"$1\" --size tiny --bits 4 \"$2\"" ${Python3_EXECUTABLE}
                                    ${CMAKE_SOURCE_DIR}/tools/make_random_model.py ${CMAKE_BINARY_DIR}/e2e-model)
    set_tests_properties(e2e.model PROPERTIES FIXTURES_SETUP e2e_model)
  endif()
  foreach(t IN LISTS e2e_tests)
    get_filename_component(name ${t} NAME_WE)
    string(REPLACE "test_" "" name ${name})
    add_test(NAME e2e.${name} COMMAND ${Python3_EXECUTABLE} ${t})
    set_tests_properties(e2e.${name} PROPERTIES ENVIRONMENT "OCELLUS_BIN=$<TARGET_FILE:ocellus>;${e2e_env};${e2e_slow}"
                                                FIXTURES_REQUIRED "${e2e_fixture}")
    # The server's tests look at times and at memory: one after the other, and the long versions of `make test-all` take
    # their hour. Each wait in them has a limit of its own. Under a sanitizer, with six times the limits, only those that
    # look at memory or at what happens to whole processes wait for each other.
    if(name MATCHES "^serve_")
      set_tests_properties(e2e.${name} PROPERTIES LABELS server TIMEOUT 7200)
      if(NOT OC_SANITIZE OR name MATCHES "^serve_(models|faults|load)$")
        set_tests_properties(e2e.${name} PROPERTIES RESOURCE_LOCK server)
      endif()
    endif()
  endforeach()
endif()

# The rules of the house: who includes whom, sizes, state, banned calls.
if(NOT OC_FUZZ)
  foreach(check includes limits)
    add_test(NAME house.${check} COMMAND python3 ${CMAKE_SOURCE_DIR}/tools/check_${check}.py)
  endforeach()
endif()

# The CUDA kernels over a model of the GPU in plain C++ (tests/kernels/cuda_model), so that their indices,
# barriers and sums are checked where there is no GPU.
set(oc_cuda_model OFF)
if(CMAKE_C_COMPILER_ID STREQUAL GNU AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64" AND Python3_FOUND AND NOT OC_FUZZ
   AND NOT OC_SANITIZE MATCHES thread)
  include(CheckLanguage)
  check_language(CXX)
  if(CMAKE_CXX_COMPILER)
    enable_language(CXX)
    set(oc_cuda_model ON)
  endif()
endif()

if(oc_cuda_model AND TARGET check_kernels)
  set(model_dir ${CMAKE_SOURCE_DIR}/tests/kernels/cuda_model)
  file(GLOB model_kernels CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/kernels/cuda/*.cu)
  set(model_sources ${model_dir}/model.cpp ${CMAKE_SOURCE_DIR}/src/kernels/dtype.c ${CMAKE_SOURCE_DIR}/src/base/err.c)
  foreach(kernel IN LISTS model_kernels)
    get_filename_component(name ${kernel} NAME_WE)
    set(translated ${CMAKE_BINARY_DIR}/cuda_model/${name}.cpp)
    add_custom_command(OUTPUT ${translated} COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/cuda_model
                       COMMAND ${Python3_EXECUTABLE} ${model_dir}/translate.py ${kernel} ${translated}
                       DEPENDS ${kernel} ${model_dir}/translate.py)
    list(APPEND model_sources ${translated})
  endforeach()
  # One of compute capability 8, one of 9, whose role P has a product of its own.
  foreach(major 8 9)
    set(model cuda_model_${major})
    add_library(${model} MODULE ${model_sources})
    target_include_directories(${model} BEFORE PRIVATE ${model_dir})
    target_include_directories(${model} PRIVATE ${CMAKE_SOURCE_DIR}/src)
    target_compile_definitions(${model} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:__CUDACC__> OC_CUDA_MODEL_MAJOR=${major} OC_CUDA_WGMMA)
    # Optimised in every build: it is slow enough.
    target_compile_options(${model} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-O2;-fno-strict-aliasing;-include;${model_dir}/cuda_runtime.h>)
    set_target_properties(${model} PROPERTIES CXX_STANDARD 17 POSITION_INDEPENDENT_CODE ON C_VISIBILITY_PRESET hidden
                          CXX_VISIBILITY_PRESET hidden LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR} PREFIX "")
    add_test(NAME kernels.${model} COMMAND check_kernels --device cuda:$<TARGET_FILE:${model}> --few)
  endforeach()
endif()

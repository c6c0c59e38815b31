# Gives sources the flags of the ISA in their name.
function(oc_isa_flags)
  foreach(s IN LISTS ARGN)
    if(s MATCHES "/x86/(avx2|avxvnni)_[^/]*$") # AVX-VNNI's instruction is written by hand
      set_source_files_properties(${s} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c;-mbmi2")
    elseif(s MATCHES "/x86/avx512bf16_[^/]*$")
      set_source_files_properties(
        ${s} PROPERTIES
          COMPILE_OPTIONS
          "-mavx2;-mfma;-mf16c;-mbmi2;-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mavx512bf16;-mprefer-vector-width=512"
      )
    elseif(s MATCHES "/x86/avx512vnni_[^/]*$")
      set_source_files_properties(
        ${s} PROPERTIES
          COMPILE_OPTIONS
          "-mavx2;-mfma;-mf16c;-mbmi2;-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mavx512vnni;-mprefer-vector-width=512"
      )
    elseif(s MATCHES "/x86/avx512vbmi_[^/]*$")
      set_source_files_properties(
        ${s}
        PROPERTIES
          COMPILE_OPTIONS
          "-mavx2;-mfma;-mf16c;-mbmi2;-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mavx512vnni;-mavx512vbmi;-mprefer-vector-width=512"
      )
    elseif(s MATCHES "/x86/amx_[^/]*$")
      set_source_files_properties(${s} PROPERTIES COMPILE_OPTIONS "-mavx2;-mamx-tile;-mamx-bf16;-mamx-int8")
    elseif(s MATCHES "/x86/avx512_[^/]*$")
      set_source_files_properties(
        ${s} PROPERTIES COMPILE_OPTIONS
                        "-mavx2;-mfma;-mf16c;-mbmi2;-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mprefer-vector-width=512")
    elseif(s MATCHES "/arm/dotprod_[^/]*$")
      set_source_files_properties(${s} PROPERTIES COMPILE_OPTIONS "-march=armv8.2-a+dotprod")
    elseif(s MATCHES "/arm/i8mm_[^/]*$")
      set_source_files_properties(${s} PROPERTIES COMPILE_OPTIONS "-march=armv8.2-a+dotprod+i8mm")
    elseif(s MATCHES "/arm/bf16_[^/]*$")
      set_source_files_properties(${s} PROPERTIES COMPILE_OPTIONS "-march=armv8.2-a+bf16")
    endif()
  endforeach()
endfunction()

# A room is a folder of src/ and a static library oc_<room>. Files under its x86 get the flags of the ISA in their name:
# x86/avx2_*.c, x86/avxvnni_*.c, x86/avx512_*.c, x86/avx512bf16_*.c, x86/avx512vnni_*.c, x86/avx512vbmi_*.c, x86/amx_*.c; files under its arm are
# compiled on aarch64 only, arm/dotprod_*.c, arm/i8mm_*.c and arm/bf16_*.c with more than its base.
function(oc_room name)
  cmake_parse_arguments(R "" "" "ROOMS;LIBS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/${name}/*.c)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    list(FILTER sources EXCLUDE REGEX "/src/${name}/arm/")
  elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
    list(FILTER sources EXCLUDE REGEX "/src/${name}/x86/")
  else()
    list(FILTER sources EXCLUDE REGEX "/src/${name}/(arm|x86)/")
  endif()
  oc_isa_flags(${sources})
  if(NOT sources)
    add_library(oc_${name} INTERFACE)
    return()
  endif()
  add_library(oc_${name} STATIC ${sources})
  target_include_directories(oc_${name} PUBLIC ${CMAKE_SOURCE_DIR}/src ${CMAKE_SOURCE_DIR}/include)
  foreach(r IN LISTS R_ROOMS)
    target_link_libraries(oc_${name} PUBLIC oc_${r})
  endforeach()
  target_link_libraries(oc_${name} PUBLIC ${R_LIBS})
endfunction()

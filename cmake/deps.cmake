# The Debian packages ocellus links. A missing one is named with the command that installs it.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)

function(oc_need out package module)
  pkg_check_modules(${out} QUIET IMPORTED_TARGET ${module})
  if(NOT ${out}_FOUND)
    message(FATAL_ERROR "ocellus needs ${module}: apt-get install ${package} (or run `make deps`)")
  endif()
endfunction()

oc_need(JPEG libjpeg62-turbo-dev libjpeg)
oc_need(PNG libpng-dev libpng)
oc_need(WEBP libwebp-dev libwebp)
oc_need(WEBPDEMUX libwebp-dev libwebpdemux)
oc_need(UTF8PROC libutf8proc-dev libutf8proc)
oc_need(PCRE2 libpcre2-dev libpcre2-8)
oc_need(XXHASH libxxhash-dev libxxhash)
oc_need(LIBUV libuv1-dev libuv)
oc_need(CURL libcurl4-openssl-dev libcurl)
oc_need(CRYPTO libssl-dev libcrypto)
oc_need(SSL libssl-dev libssl)
oc_need(YAML libyaml-dev yaml-0.1)
oc_need(SECCOMP libseccomp-dev libseccomp)
find_library(GIF_LIBRARY gif)
find_path(GIF_INCLUDE gif_lib.h)
if(NOT GIF_LIBRARY OR NOT GIF_INCLUDE)
  message(FATAL_ERROR "ocellus needs giflib: apt-get install libgif-dev (or run `make deps`)")
endif()

set(OC_IMAGE_LIBS PkgConfig::JPEG PkgConfig::PNG PkgConfig::WEBP PkgConfig::WEBPDEMUX ${GIF_LIBRARY})
set(OC_CHAT_LIBS PkgConfig::UTF8PROC PkgConfig::PCRE2)

# For tests.
if(NOT Python3_EXECUTABLE AND EXISTS /usr/bin/python3)
  set(Python3_EXECUTABLE /usr/bin/python3) # it sees Debian's python3-numpy; one earlier in PATH may not
endif()
find_package(Python3 QUIET COMPONENTS Interpreter)

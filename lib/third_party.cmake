# The libraries that everything here is built on, as targets: moelora_fmt, moelora_zlib, moelora_pcre2. With
# MOELORA_STATIC each is linked statically, and users of the installed library get the machine's own.
find_package(nlohmann_json 3.11 REQUIRED)
find_package(CLI11 2 REQUIRED)
find_package(fmt 9 REQUIRED)
find_package(Eigen3 3.4 REQUIRED NO_MODULE)
find_package(Threads REQUIRED)
if(NOT "${MOELORA_FOUND_FOR_STATIC}" STREQUAL "${MOELORA_STATIC}")  # what was found before is of the other kind
  foreach(found ZLIB_LIBRARY ZLIB_LIBRARY_RELEASE ZLIB_LIBRARY_DEBUG MOELORA_PCRE2)
    unset(${found} CACHE)
  endforeach()
  set(MOELORA_FOUND_FOR_STATIC ${MOELORA_STATIC} CACHE INTERNAL "")
endif()
set(ZLIB_USE_STATIC_LIBS ${MOELORA_STATIC})
find_package(ZLIB REQUIRED)
set(pcre2_name pcre2-8)  # no CMake package of it in Debian: linked by its name
if(MOELORA_STATIC)
  set(pcre2_name libpcre2-8.a)
endif()
find_library(MOELORA_PCRE2 ${pcre2_name} REQUIRED)

add_library(moelora_zlib INTERFACE)
target_link_libraries(moelora_zlib INTERFACE ZLIB::ZLIB)
add_library(moelora_pcre2 INTERFACE)
target_link_libraries(moelora_pcre2 INTERFACE $<IF:$<BOOL:${MOELORA_STATIC}>,${MOELORA_PCRE2},pcre2-8>)

get_target_property(fmt_kind fmt::fmt TYPE)
if(NOT MOELORA_STATIC OR fmt_kind STREQUAL STATIC_LIBRARY)
  add_library(moelora_fmt INTERFACE)
  target_link_libraries(moelora_fmt INTERFACE fmt::fmt)
elseif(fmt_VERSION VERSION_LESS 11)
  add_library(moelora_fmt STATIC lib/base/static_fmt.cpp)
  set_target_properties(moelora_fmt PROPERTIES POSITION_INDEPENDENT_CODE ON)  # for a Python module
  target_include_directories(moelora_fmt SYSTEM PUBLIC $<TARGET_PROPERTY:fmt::fmt,INTERFACE_INCLUDE_DIRECTORIES>)
  # The same definitions too: objects are the same with and without MOELORA_STATIC, and a compiler cache has them.
  target_compile_definitions(moelora_fmt PUBLIC $<TARGET_PROPERTY:fmt::fmt,INTERFACE_COMPILE_DEFINITIONS>)
else()
  add_library(moelora_fmt INTERFACE)
  target_link_libraries(moelora_fmt INTERFACE fmt::fmt-header-only)
endif()

# What of others is in a binary, by its text in lib/third_party.
set(MOELORA_THIRD_PARTY nlohmann-json CLI11 Eigen fmt xxHash zlib PCRE2 libstdc++)
set(third_party_texts ${CMAKE_CURRENT_LIST_DIR}/third_party)

# moelora_write_licenses(FILE NAMES...): one text of them all.
function(moelora_write_licenses file)
  set(all "What is linked into moelora's programs, and on which terms. moelora itself: Apache 2.0 (LICENSE).\n")
  foreach(name ${ARGN})
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${third_party_texts}/${name}.txt)
    file(READ ${third_party_texts}/${name}.txt text)
    string(APPEND all "\n---- ${name} ----\n\n${text}")
  endforeach()
  file(CONFIGURE OUTPUT ${file} CONTENT "@all@" @ONLY)
endfunction()

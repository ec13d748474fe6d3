# What `cmake --install` lays down: bin/lora-* with their manual pages and completions, the library, the headers that
# lib/moelora.h is made of (included as "moelora/moelora.h") and the package that find_package(moelora) reads. `cpack`
# makes a .deb of it.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(headers ${PROJECT_BINARY_DIR}/front_door/moelora)
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/moelora)

install(CODE "execute_process(COMMAND ${CMAKE_COMMAND} -DROOT=${PROJECT_SOURCE_DIR}
              -DGENERATED=${PROJECT_BINARY_DIR}/lib/generated -DOUT=${headers}
              -P ${PROJECT_SOURCE_DIR}/lib/install_headers.cmake COMMAND_ERROR_IS_FATAL ANY)")
install(DIRECTORY ${headers} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(TARGETS moelora EXPORT moelora INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT moelora NAMESPACE moelora:: FILE moeloraTargets.cmake DESTINATION ${package})
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE ${PROJECT_BINARY_DIR}/THIRD_PARTY_LICENSES DESTINATION ${CMAKE_INSTALL_DOCDIR})

configure_package_config_file(${PROJECT_SOURCE_DIR}/lib/moeloraConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/moeloraConfig.cmake INSTALL_DESTINATION ${package})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/moeloraConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/moeloraConfig.cmake ${PROJECT_BINARY_DIR}/moeloraConfigVersion.cmake
        DESTINATION ${package})

# What the tools say of themselves.
set(manual ${PROJECT_BINARY_DIR}/manual)
foreach(tool lora-convert lora-validate lora-diff)
  foreach(page man:man1/${tool}.1 bash:bash/${tool} zsh:zsh/_${tool} fish:fish/${tool}.fish)
    string(REGEX MATCH "^([a-z]+):(.*)$" ignored ${page})
    install(CODE "file(MAKE_DIRECTORY ${manual}/man1 ${manual}/bash ${manual}/zsh ${manual}/fish)
      execute_process(COMMAND $<TARGET_FILE:${tool}> --generate ${CMAKE_MATCH_1}
                      OUTPUT_FILE ${manual}/${CMAKE_MATCH_2} COMMAND_ERROR_IS_FATAL ANY)")
  endforeach()
endforeach()
install(DIRECTORY ${manual}/man1 DESTINATION ${CMAKE_INSTALL_MANDIR})
install(DIRECTORY ${manual}/bash/ DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(DIRECTORY ${manual}/zsh/ DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/vendor-completions)
install(DIRECTORY ${manual}/fish/ DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME moelora)
set(CPACK_PACKAGE_CONTACT "The moelora authors <moelora@localhost>")  # nowhere published yet
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Converts, validates and compares MoE LoRA adapters, offline")
set(CPACK_PACKAGE_DESCRIPTION "lora-convert rewrites an adapter into the form a server loads, lora-validate says before
the start what a server would refuse, drop or compute wrongly, and lora-diff whether two adapters, or a
trainer and a server, still agree. With the C++ library.")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "g++, cmake, libfmt-dev, zlib1g-dev, libpcre2-dev")  # to link the library
include(CPack)

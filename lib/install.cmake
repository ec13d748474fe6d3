# What `cmake --install` lays down: bin/lora-*, the library, its headers under include/moelora/lib
# (included as "lib/..." as everywhere in the sources) and the package that find_package(moelora) reads.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(headers ${CMAKE_INSTALL_INCLUDEDIR}/moelora)
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/moelora)

install(DIRECTORY ${PROJECT_SOURCE_DIR}/lib DESTINATION ${headers} FILES_MATCHING PATTERN "*.h")
install(FILES ${PROJECT_BINARY_DIR}/lib/generated/layouts.inc DESTINATION ${headers}/lib/adapter)
install(FILES ${PROJECT_BINARY_DIR}/lib/generated/engines.inc DESTINATION ${headers}/lib/engine)
install(FILES ${PROJECT_SOURCE_DIR}/kernels/moe_lora.h DESTINATION ${headers}/kernels)
install(TARGETS moelora EXPORT moelora INCLUDES DESTINATION ${headers})
install(EXPORT moelora NAMESPACE moelora:: FILE moeloraTargets.cmake DESTINATION ${package})
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

configure_package_config_file(${PROJECT_SOURCE_DIR}/lib/moeloraConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/moeloraConfig.cmake INSTALL_DESTINATION ${package})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/moeloraConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/moeloraConfig.cmake ${PROJECT_BINARY_DIR}/moeloraConfigVersion.cmake
        DESTINATION ${package})

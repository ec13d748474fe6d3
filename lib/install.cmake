# What `cmake --install` lays down: bin/lora-*, the library, the headers that lib/moelora.h is made of (included as
# "moelora/moelora.h") and the package that find_package(moelora) reads.
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

# Installing libhilora: libraries, headers, hilora.pc and the package that find_package(hilora) finds.
include(CMakePackageConfigHelpers)

install(TARGETS hilora hilora_static EXPORT hiloraTargets
  LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT runtime NAMELINK_COMPONENT development
  ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT development)
foreach(header IN LISTS HILORA_PUBLIC_HEADERS)
  install(FILES "${PROJECT_SOURCE_DIR}/include/${header}"
    DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/hilora" COMPONENT development)
endforeach()

# From the folder of hilora.pc to the prefix, so that the installed tree can be moved.
file(RELATIVE_PATH HILORA_PC_TO_PREFIX "/prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/prefix")
configure_file("${PROJECT_SOURCE_DIR}/cmake/hilora.pc.in" "${CMAKE_CURRENT_BINARY_DIR}/hilora.pc" @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/hilora.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig" COMPONENT development)

set(HILORA_CMAKE_DIR "${CMAKE_INSTALL_LIBDIR}/cmake/hilora")
configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/hiloraConfig.cmake.in"
  "${CMAKE_CURRENT_BINARY_DIR}/hiloraConfig.cmake" INSTALL_DESTINATION "${HILORA_CMAKE_DIR}")
write_basic_package_version_file("${CMAKE_CURRENT_BINARY_DIR}/hiloraConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/hiloraConfig.cmake" "${CMAKE_CURRENT_BINARY_DIR}/hiloraConfigVersion.cmake"
  DESTINATION "${HILORA_CMAKE_DIR}" COMPONENT development)
install(EXPORT hiloraTargets NAMESPACE hilora:: DESTINATION "${HILORA_CMAKE_DIR}" COMPONENT development)

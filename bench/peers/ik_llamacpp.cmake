# Completes the sources of ik-llama-cpp-python 0.1.5 on PyPI, which leave out the script that writes
# common/build-info.cpp. Given as -DCMAKE_PROJECT_INCLUDE, it runs after each project() of the build.
set(script "${CMAKE_SOURCE_DIR}/vendor/ik_llama.cpp/common/cmake/build-info-gen-cpp.cmake")
if(NOT EXISTS "${script}")
    file(WRITE "${script}" [[
set(BUILD_NUMBER 0)
foreach(name BUILD_COMMIT BUILD_COMPILER BUILD_TARGET)
    set(${name} unknown)
endforeach()
configure_file(common/build-info.cpp.in "${CMAKE_SOURCE_DIR}/common/build-info.cpp" @ONLY)
]])
endif()

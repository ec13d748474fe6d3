# Installs BUILD into a fresh prefix, builds examples/ against it as an outside project would, and runs
# what came of it on the bundled adapter. All installed headers are compiled in one unit, and each is used alone.
#   cmake -DBUILD=.. -DSOURCE=.. -DWORK=.. -DGENERATOR=.. -DCOMPILER=.. [-DFLAGS=..] -P install_test.cmake
cmake_minimum_required(VERSION 3.25)

function(run)
  execute_process(COMMAND ${ARGN} OUTPUT_VARIABLE output ERROR_VARIABLE output RESULT_VARIABLE status)
  if(status)
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "${command}\nexited ${status}:\n${output}")
  endif()
  set(output "${output}" PARENT_SCOPE)
endfunction()

function(expect text)
  if(NOT output MATCHES "${text}")
    message(FATAL_ERROR "expected \"${text}\" in:\n${output}")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK})
run(${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/prefix)

# Every installed header: in one unit in both orders, so that no two of them clash and none needs another before it.
file(GLOB_RECURSE headers RELATIVE ${WORK}/prefix/include ${WORK}/prefix/include/*.h)
foreach(order up down)
  list(REVERSE headers)
  list(TRANSFORM headers PREPEND "#include \"" OUTPUT_VARIABLE lines)
  list(TRANSFORM lines APPEND "\"")
  list(JOIN lines "\n" text)
  file(WRITE ${WORK}/headers/${order}.cpp "${text}\n")
endforeach()
file(WRITE ${WORK}/headers/CMakeLists.txt "cmake_minimum_required(VERSION 3.25)
project(headers LANGUAGES CXX)
set(CMAKE_CXX_STANDARD 20)
find_package(moelora REQUIRED)
add_library(headers OBJECT up.cpp down.cpp)
target_link_libraries(headers PRIVATE moelora::moelora)\n")
list(LENGTH headers count)
if(count LESS 10 OR count GREATER 45)
  message(FATAL_ERROR "${count} headers are installed: the front door's closure is expected, about 30 small ones")
endif()
run(${CMAKE_COMMAND} -S ${WORK}/headers -B ${WORK}/headers/build -G ${GENERATOR} -DCMAKE_PREFIX_PATH=${WORK}/prefix
    -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_CXX_FLAGS=${FLAGS})
run(${CMAKE_COMMAND} --build ${WORK}/headers/build)

run(${CMAKE_COMMAND} -S ${SOURCE}/examples -B ${WORK}/build -G ${GENERATOR} -DCMAKE_PREFIX_PATH=${WORK}/prefix
    -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_CXX_FLAGS=${FLAGS})
run(${CMAKE_COMMAND} --build ${WORK}/build)

run(${WORK}/prefix/bin/lora-convert --version)
expect("^lora-convert [0-9]+\\.[0-9]+\\.[0-9]+ ")
run(${WORK}/build/minimal_api ${SOURCE}/examples/data/gpt_oss_adapter ${SOURCE}/examples/data/gpt_oss_base
    ${WORK}/converted)
expect("layer 0 gate_proj: expert 0 has A ")
expect("[1-9][0-9]* factors identical")

# Installs BUILD into a fresh prefix, builds examples/ against it as an outside project would, and runs
# what came of it on the bundled adapter.
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
run(${CMAKE_COMMAND} -S ${SOURCE}/examples -B ${WORK}/build -G ${GENERATOR} -DCMAKE_PREFIX_PATH=${WORK}/prefix
    -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_CXX_FLAGS=${FLAGS})
run(${CMAKE_COMMAND} --build ${WORK}/build)

run(${WORK}/prefix/bin/lora-convert --version)
expect("^lora-convert [0-9]+\\.[0-9]+\\.[0-9]+ ")
run(${WORK}/build/minimal_api ${SOURCE}/examples/data/gpt_oss_adapter ${SOURCE}/examples/data/gpt_oss_base
    ${WORK}/converted)
expect("layer 0 gate_proj: expert 0 has A ")
expect("[1-9][0-9]* factors identical")

# Each tool runs where there is no CUDA: it needs no library of CUDA's, and starts while the module cannot be found.
#   cmake -DREADELF=.. -DTOOLS="a;b" -P no_cuda_test.cmake
cmake_minimum_required(VERSION 3.25)
set(ENV{MOELORA_CUDA_MODULE} /nowhere/libmoelora_cuda.so)
foreach(tool ${TOOLS})
  execute_process(COMMAND ${READELF} -d ${tool} OUTPUT_VARIABLE needs COMMAND_ERROR_IS_FATAL ANY)
  if(NOT needs MATCHES "NEEDED" OR needs MATCHES "NEEDED[^\n]*(cuda|cublas|nvidia|moelora)")
    message(FATAL_ERROR "${tool} needs:\n${needs}")
  endif()
  execute_process(COMMAND ${tool} --version OUTPUT_VARIABLE version COMMAND_ERROR_IS_FATAL ANY)
  if(NOT version MATCHES "^lora-[a-z]+ [0-9]")
    message(FATAL_ERROR "${tool} --version printed:\n${version}")
  endif()
endforeach()

# The flags of the engines that are compiled for one instruction set each and chosen at run time; on other
# processors these two files are empty. Include it where fft_conv's sources are compiled.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(avx2 -mavx2 -mfma)
  set(avx512 ${avx2} -mavx512f -mavx512dq -mavx512bw -mavx512vl)
  set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/engine_avx2.cpp
    PROPERTIES COMPILE_OPTIONS "${avx2}")
  set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/engine_avx512.cpp
    PROPERTIES COMPILE_OPTIONS "${avx512}")
endif()

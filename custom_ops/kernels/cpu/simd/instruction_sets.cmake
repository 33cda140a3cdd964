# Include this where the CPU kernels are compiled.
#
# GRAPHSCALE_SIMD_SOURCES   simd/*.cpp. Name them behind all other sources: the sets' files may hold
#                           copies of the standard library's inline functions, of equal copies the
#                           linker keeps the first, and that one must run on every machine.
# The flags of avx2.cpp and avx512.cpp; the machine's set is chosen at run time (instruction_set.h).
set(GRAPHSCALE_SIMD_SOURCES instruction_set kernel_table portable avx2 avx512)
list(TRANSFORM GRAPHSCALE_SIMD_SOURCES PREPEND ${CMAKE_CURRENT_LIST_DIR}/)
list(TRANSFORM GRAPHSCALE_SIMD_SOURCES APPEND .cpp)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(avx2 -mavx2 -mfma)
  set(avx512 ${avx2} -mavx512f -mavx512dq -mavx512bw -mavx512vl -mprefer-vector-width=512)
  set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/avx2.cpp
    PROPERTIES COMPILE_OPTIONS "${avx2}")
  set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/avx512.cpp
    PROPERTIES COMPILE_OPTIONS "${avx512}")
endif()

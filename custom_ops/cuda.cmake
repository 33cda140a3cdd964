# libgraphscale_cuda.so: the CUDA kernels, with GRAPHSCALE_CUDA=ON. It needs no CUDA library of the
# machine but the driver, which it looks for when it is opened.
#
#   CMAKE_CUDA_ARCHITECTURES   sm_80, sm_90 and PTX for newer GPUs unless given
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  message(FATAL_ERROR "nvcc is not found; put it on the PATH, set CMAKE_CUDA_COMPILER, or give "
                      "-DGRAPHSCALE_CUDA=OFF for the CPU kernels alone")
endif()
file(GLOB_RECURSE cuda_kernels CONFIGURE_DEPENDS custom_ops/kernels/cuda/*.cu)
# What the kernels share with the CPU's; all else of these files the linker drops.
set(shared_sources custom_ops/core/conv_geometry.cpp custom_ops/core/operator.cpp
                   custom_ops/core/tensor.cpp custom_ops/kernels/cpu/fft_conv/geometry.cpp)

if(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80-real 90)
endif()
enable_language(CUDA)
message(STATUS "CUDA ${CMAKE_CUDA_COMPILER_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")
add_library(graphscale_cuda SHARED ${cuda_kernels} ${shared_sources})
set_target_properties(graphscale_cuda PROPERTIES
  CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_RUNTIME_LIBRARY Static
  CUDA_VISIBILITY_PRESET hidden)
target_include_directories(graphscale_cuda PRIVATE custom_ops)
target_compile_options(graphscale_cuda PRIVATE
  $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr -Xcompiler=-Wall,-Wextra>
  $<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${CMAKE_COMPILE_WARNING_AS_ERROR}>>:-Xcompiler=-Werror>
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -ffunction-sections>)
set(cuda_exports ${CMAKE_CURRENT_SOURCE_DIR}/custom_ops/cuda_exports.map)
target_link_options(graphscale_cuda PRIVATE
  -Wl,--gc-sections -Wl,-z,defs -Wl,--version-script=${cuda_exports})
set_target_properties(graphscale_cuda PROPERTIES LINK_DEPENDS ${cuda_exports})
install(TARGETS graphscale_cuda LIBRARY DESTINATION lib)

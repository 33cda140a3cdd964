// The C interface that graphscale/core/c_api.py opens with ctypes. No torch, no Python headers: one
// library serves every version of both.
#pragma once

#include <cstddef>
#include <cstdint>

#define GRAPHSCALE_EXPORT __attribute__((visibility("default")))

extern "C" {

struct GraphScaleAttribute {
  const char* name;
  int32_t kind;   // 0 integer, 1 number, 2 text, 3 integers
  int32_t count;  // of integers
  int64_t integer;
  double number;
  const char* text;
  const int64_t* integers;
};

// Where and how a call runs.
struct GraphScalePlace {
  int32_t on_gpu;
  int32_t threads;
  void* stream;                     // of the GPU
  void* (*allocate)(size_t bytes);  // GPU memory; not used on the CPU
  void (*release)(void* memory);
};

// Tensors are numbers, one tensor after another: memory (contiguous), type (as ONNX numbers its
// element types; 0 for an input that is left out), rank and dimensions. A flat list is what ctypes
// packs fastest.

// Runs operator `name` on `tensors`: inputs, then outputs (optional ones at the end may be left
// out), which must have the shapes that follow from the inputs. Returns 0, or 1 with the reason in
// error[0, error_size).
GRAPHSCALE_EXPORT int graphscale_run(const char* name, const int64_t* tensors, int32_t input_count,
                                     int32_t output_count, const GraphScaleAttribute* attributes,
                                     int32_t attribute_count, const GraphScalePlace* place,
                                     char* error, size_t error_size);

// The algorithms worth measuring for a call (its inputs need no memory), joined by ';', the cost
// model's best first. Returns 0 with them, or 1 with the reason, in answer[0, answer_size).
GRAPHSCALE_EXPORT int graphscale_algorithms(const char* name, const int64_t* inputs,
                                            int32_t input_count,
                                            const GraphScaleAttribute* attributes,
                                            int32_t attribute_count, const GraphScalePlace* place,
                                            char* answer, size_t answer_size);

// Types and shapes of all outputs of a call (its inputs need no memory), optional ones included, as
// type, rank and dimensions of one output after another, in outputs[0, capacity). A dimension that
// follows from the inputs' values is -1. Returns 0, or 1 with the reason in error[0, error_size).
GRAPHSCALE_EXPORT int graphscale_infer_shapes(const char* name, const int64_t* inputs,
                                              int32_t input_count,
                                              const GraphScaleAttribute* attributes,
                                              int32_t attribute_count, int64_t* outputs,
                                              int32_t capacity, char* error, size_t error_size);

// All operators as JSON: what docs/operators.md is made from.
GRAPHSCALE_EXPORT const char* graphscale_describe();

// Why the CUDA kernels cannot be used; an empty string where they can.
GRAPHSCALE_EXPORT const char* graphscale_cuda_error();
}

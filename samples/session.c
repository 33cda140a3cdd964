/* Runs a model with graphscale's operators from C: onnxruntime's C API, and no Python.
 *
 * In: libgraphscale.so, and an ONNX file whose first input is of floats and of known shape. Out: the
 * first output's numbers, for the input 0, 1, 2 ...
 *
 *   cc -I FOLDER_OF_HEADERS session.c -o session FOLDER/libonnxruntime.so
 *   ./session libgraphscale.so model.onnx
 */
#include <onnxruntime_c_api.h>
#include <stdio.h>
#include <stdlib.h>

static const OrtApi* api;

/* Ends the program with onnxruntime's message where a call has failed. */
static void check(OrtStatus* status) {
  if (status == NULL) return;
  fprintf(stderr, "%s\n", api->GetErrorMessage(status));
  exit(1);
}

static size_t element_count(const OrtTensorTypeAndShapeInfo* info) {
  size_t count;
  check(api->GetTensorShapeElementCount(info, &count));
  return count;
}

int main(int argument_count, char** arguments) {
  if (argument_count != 3) {
    fprintf(stderr, "usage: %s libgraphscale.so model.onnx\n", arguments[0]);
    return 2;
  }
  api = OrtGetApiBase()->GetApi(ORT_API_VERSION);
  if (api == NULL) {
    fprintf(stderr, "this onnxruntime is older than its headers\n");
    return 1;
  }

  /* The operators: one call on the session's options. */
  OrtEnv* environment;
  OrtSessionOptions* options;
  OrtSession* session;
  check(api->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "session", &environment));
  check(api->CreateSessionOptions(&options));
  check(api->RegisterCustomOpsLibrary_V2(options, arguments[1]));
  check(api->CreateSession(environment, arguments[2], options, &session));

  /* The first input: its name, its shape, and numbers. */
  OrtAllocator* allocator;
  OrtTypeInfo* type;
  const OrtTensorTypeAndShapeInfo* info;
  char *input_name, *output_name;
  size_t rank;
  int64_t shape[16];
  check(api->GetAllocatorWithDefaultOptions(&allocator));
  check(api->SessionGetInputName(session, 0, allocator, &input_name));
  check(api->SessionGetOutputName(session, 0, allocator, &output_name));
  check(api->SessionGetInputTypeInfo(session, 0, &type));
  check(api->CastTypeInfoToTensorInfo(type, &info));
  check(api->GetDimensionsCount(info, &rank));
  if (rank > 16) return 1;
  check(api->GetDimensions(info, shape, rank));
  const size_t count = element_count(info);
  float* numbers = malloc(count * sizeof(float));
  for (size_t i = 0; i < count; ++i) numbers[i] = (float)i;

  OrtMemoryInfo* memory;
  OrtValue *input, *output = NULL;
  check(api->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
  check(api->CreateTensorWithDataAsOrtValue(memory, numbers, count * sizeof(float), shape, rank,
                                            ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &input));
  check(api->Run(session, NULL, (const char* const*)&input_name, (const OrtValue* const*)&input, 1,
                 (const char* const*)&output_name, 1, &output));

  OrtTensorTypeAndShapeInfo* output_info;
  float* results;
  check(api->GetTensorTypeAndShape(output, &output_info));
  check(api->GetTensorMutableData(output, (void**)&results));
  const size_t result_count = element_count(output_info);
  for (size_t i = 0; i < result_count; ++i) printf("%g\n", results[i]);

  api->ReleaseTensorTypeAndShapeInfo(output_info);
  api->ReleaseValue(output);
  api->ReleaseValue(input);
  api->ReleaseMemoryInfo(memory);
  api->ReleaseTypeInfo(type);
  check(api->AllocatorFree(allocator, input_name));
  check(api->AllocatorFree(allocator, output_name));
  api->ReleaseSession(session);
  api->ReleaseSessionOptions(options);
  api->ReleaseEnv(environment);
  free(numbers);
  return 0;
}

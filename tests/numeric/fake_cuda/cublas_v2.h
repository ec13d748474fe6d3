#pragma once

// As much of cuBLAS as kernels/ uses, as plain loops; see cuda_runtime.h beside it.

#include <cstddef>

#include "tests/numeric/fake_cuda/cuda_runtime.h"

enum cublasStatus_t {
  CUBLAS_STATUS_SUCCESS,
  CUBLAS_STATUS_INVALID_VALUE,
  CUBLAS_STATUS_NOT_SUPPORTED
};
enum cublasOperation_t { CUBLAS_OP_N, CUBLAS_OP_T };
enum cudaDataType_t { CUDA_R_32F, CUDA_R_16BF };
enum cublasComputeType_t { CUBLAS_COMPUTE_32F };
enum cublasGemmAlgo_t { CUBLAS_GEMM_DEFAULT };

struct FakeBlas;
using cublasHandle_t = FakeBlas*;

cublasStatus_t cublasCreate(cublasHandle_t* out);
cublasStatus_t cublasDestroy(cublasHandle_t);
cublasStatus_t cublasSetStream(cublasHandle_t, cudaStream_t);
cublasStatus_t cublasSetWorkspace(cublasHandle_t, void*, size_t bytes);
cublasStatus_t cublasGetVersion(cublasHandle_t, int* out);
const char* cublasGetStatusString(cublasStatus_t);

cublasStatus_t cublasGemmEx(cublasHandle_t, cublasOperation_t, cublasOperation_t, int m, int n,
                            int k, const void* alpha, const void* a, cudaDataType_t, int lda,
                            const void* b, cudaDataType_t, int ldb, const void* beta, void* c,
                            cudaDataType_t, int ldc, cublasComputeType_t, cublasGemmAlgo_t);
cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t, cublasOperation_t, cublasOperation_t,
                                          int m, int n, int k, const void* alpha, const void* a,
                                          cudaDataType_t, int lda, long long stride_a,
                                          const void* b, cudaDataType_t, int ldb,
                                          long long stride_b, const void* beta, void* c,
                                          cudaDataType_t, int ldc, long long stride_c, int count,
                                          cublasComputeType_t, cublasGemmAlgo_t);
cublasStatus_t cublasGemmBatchedEx(cublasHandle_t, cublasOperation_t, cublasOperation_t, int m,
                                   int n, int k, const void* alpha, const void* const* a,
                                   cudaDataType_t, int lda, const void* const* b, cudaDataType_t,
                                   int ldb, const void* beta, void* const* c, cudaDataType_t,
                                   int ldc, int count, cublasComputeType_t, cublasGemmAlgo_t);

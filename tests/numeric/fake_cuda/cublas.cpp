#include <cublas_v2.h>

#include <bit>

struct FakeBlas {
  cudaStream_t stream = nullptr;
  void* workspace = nullptr;
};

namespace {

float from_bf16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

// c [m, n] = a^T b, columns apart by lda, ldb, ldc.
void multiply(int m, int n, int k, const uint16_t* a, int lda, const uint16_t* b, int ldb, float* c,
              int ldc) {
  for (int64_t column = 0; column < n; ++column) {
    for (int64_t row = 0; row < m; ++row) {
      float sum = 0;
      for (int64_t i = 0; i < k; ++i)
        sum += from_bf16(a[row * lda + i]) * from_bf16(b[column * ldb + i]);
      c[column * ldc + row] = sum;
    }
  }
}

}  // namespace

cublasStatus_t cublasCreate(cublasHandle_t* out) {
  *out = new FakeBlas;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy(cublasHandle_t handle) {
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetStream(cublasHandle_t handle, cudaStream_t stream) {
  *handle = {stream, nullptr};  // as the real one: the workspace is gone
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace(cublasHandle_t handle, void* workspace, size_t) {
  handle->workspace = workspace;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetVersion(cublasHandle_t, int* out) {
  *out = 130100;
  return CUBLAS_STATUS_SUCCESS;
}
const char* cublasGetStatusString(cublasStatus_t) { return "a cuBLAS error"; }

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t ta, cublasOperation_t tb,
                            int m, int n, int k, const void* alpha, const void* a,
                            cudaDataType_t a_type, int lda, const void* b, cudaDataType_t b_type,
                            int ldb, const void* beta, void* c, cudaDataType_t c_type, int ldc,
                            cublasComputeType_t compute, cublasGemmAlgo_t algo) {
  return cublasGemmStridedBatchedEx(handle, ta, tb, m, n, k, alpha, a, a_type, lda, 0, b, b_type,
                                    ldb, 0, beta, c, c_type, ldc, 0, 1, compute, algo);
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t ta,
                                          cublasOperation_t tb, int m, int n, int k,
                                          const void* alpha, const void* a, cudaDataType_t a_type,
                                          int lda, long long stride_a, const void* b,
                                          cudaDataType_t b_type, int ldb, long long stride_b,
                                          const void* beta, void* c, cudaDataType_t c_type, int ldc,
                                          long long stride_c, int count, cublasComputeType_t,
                                          cublasGemmAlgo_t) {
  const bool types = a_type == CUDA_R_16BF && b_type == CUDA_R_16BF && c_type == CUDA_R_32F;
  const bool plain =
      *static_cast<const float*>(alpha) == 1 && *static_cast<const float*>(beta) == 0;
  if (!types || !plain || ta != CUBLAS_OP_T || tb != CUBLAS_OP_N)
    return CUBLAS_STATUS_NOT_SUPPORTED;
  if (handle->workspace == nullptr || lda < k || ldb < k || ldc < m || m < 1 || n < 1 || k < 1)
    return CUBLAS_STATUS_INVALID_VALUE;
  if (count > 1 && (stride_a == 0 || stride_b == 0 || stride_c == 0))  // as its manual says
    return CUBLAS_STATUS_INVALID_VALUE;
  const auto* from_a = static_cast<const uint16_t*>(a);
  const auto* from_b = static_cast<const uint16_t*>(b);
  fake_enqueue([=, to = static_cast<float*>(c)] {
    for (int64_t i = 0; i < count; ++i)
      multiply(m, n, k, from_a + i * stride_a, lda, from_b + i * stride_b, ldb, to + i * stride_c,
               ldc);
  });
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGemmBatchedEx(cublasHandle_t handle, cublasOperation_t ta,
                                   cublasOperation_t tb, int m, int n, int k, const void* alpha,
                                   const void* const* a, cudaDataType_t a_type, int lda,
                                   const void* const* b, cudaDataType_t b_type, int ldb,
                                   const void* beta, void* const* c, cudaDataType_t c_type, int ldc,
                                   int count, cublasComputeType_t compute, cublasGemmAlgo_t algo) {
  for (int i = 0; i < count; ++i) {
    const cublasStatus_t status =
        cublasGemmEx(handle, ta, tb, m, n, k, alpha, a[i], a_type, lda, b[i], b_type, ldb, beta,
                     c[i], c_type, ldc, compute, algo);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
  }
  return CUBLAS_STATUS_SUCCESS;
}

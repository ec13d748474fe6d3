#include "kernels/gemm.h"

#include <limits>

namespace moelora::kernels {
namespace {

constexpr float kOne = 1, kZero = 0;

int narrow(int64_t value) {
  if (value < 0 || value > std::numeric_limits<int>::max())
    stop(Status::bad_argument, "a matrix too large for cuBLAS; use fewer tokens");
  return static_cast<int>(value);
}

bool empty(const Gemm& g, int64_t n) { return g.m == 0 || g.k == 0 || n == 0; }

}  // namespace

// To cuBLAS, which counts columns, row-major [n, k] is a k x n matrix: out' = weight'^T in'.
void gemm(const Lane& lane, const Gemm& g, int64_t n) {
  if (empty(g, n)) return;
  check(cublasGemmEx(lane.blas(), CUBLAS_OP_T, CUBLAS_OP_N, narrow(g.m), narrow(n), narrow(g.k),
                     &kOne, g.weight, CUDA_R_16BF, narrow(g.weight_pitch), g.in, CUDA_R_16BF,
                     narrow(g.in_pitch), &kZero, g.out, CUDA_R_32F, narrow(g.out_pitch),
                     CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
        "cublasGemmEx");
}

void gemm_strided(const Lane& lane, const Gemm& g, int64_t n, int64_t count,
                  const Strides& strides) {
  if (empty(g, n)) return;
  check(cublasGemmStridedBatchedEx(
            lane.blas(), CUBLAS_OP_T, CUBLAS_OP_N, narrow(g.m), narrow(n), narrow(g.k), &kOne,
            g.weight, CUDA_R_16BF, narrow(g.weight_pitch), strides.weight, g.in, CUDA_R_16BF,
            narrow(g.in_pitch), strides.in, &kZero, g.out, CUDA_R_32F, narrow(g.out_pitch),
            strides.out, narrow(count), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
        "cublasGemmStridedBatchedEx");
}

void gemm_pointers(const Lane& lane, const Gemm& g, int64_t n, int64_t count,
                   const void* const* pointers) {
  if (empty(g, n) || count == 0) return;
  void* const* out = const_cast<void* const*>(pointers + 2 * count);
  check(cublasGemmBatchedEx(lane.blas(), CUBLAS_OP_T, CUBLAS_OP_N, narrow(g.m), narrow(n),
                            narrow(g.k), &kOne, pointers, CUDA_R_16BF, narrow(g.weight_pitch),
                            pointers + count, CUDA_R_16BF, narrow(g.in_pitch), &kZero, out,
                            CUDA_R_32F, narrow(g.out_pitch), narrow(count), CUBLAS_COMPUTE_32F,
                            CUBLAS_GEMM_DEFAULT),
        "cublasGemmBatchedEx");
}

}  // namespace moelora::kernels

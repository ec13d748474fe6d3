#pragma once

#include <Eigen/Core>

namespace moelora {

// Row-major, one row a token where it holds activations.
template <class T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class T>
using RowVector = Eigen::Matrix<T, 1, Eigen::Dynamic>;

}  // namespace moelora

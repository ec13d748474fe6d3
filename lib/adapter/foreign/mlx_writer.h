#pragma once

#include "lib/adapter/dialect.h"

namespace moelora {

// Dialect::write of MLX: what mlx-lm's tuner would have saved.
ForeignFiles write_mlx(const PeftAdapter& in);

}  // namespace moelora

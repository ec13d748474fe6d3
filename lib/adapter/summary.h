#pragma once

#include <string>
#include <vector>

#include "lib/adapter/adapter.h"

namespace moelora {

// One line of the module table: modules of one name, rank and scale in several layers.
struct ModuleRow {
  std::string module;  // "self_attn.q_proj", "mlp.experts.gate_proj", "lm_head"
  std::string layers;  // "0-23", "1,3,5", "" outside the layers
  int64_t pairs = 0;   // low-rank pairs: experts count one each
  int64_t rank = 0;
  double alpha = 0, scale = 0;
  DType dtype = DType::F32;
  Shape a, b;                               // of one pair
  bool shared_a = false, shared_b = false;  // one factor for all experts
};

std::vector<ModuleRow> module_rows(const Adapter& adapter);

// "0-3,7" of {0,1,2,3,7}.
std::string ranges(const std::vector<int>& sorted);

// Columns aligned, two spaces between; the first row is the heading.
std::string text_table(const std::vector<std::vector<std::string>>& rows);

std::string module_table(const std::vector<ModuleRow>& rows, std::string_view layout);

// "1.26 GB", "469.8 MB", "12 bytes": decimal units.
std::string size_text(uint64_t bytes);

}  // namespace moelora

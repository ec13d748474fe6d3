#include "tools/python/tensors.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <optional>
#include <tuple>

#include "lib/io/safetensors.h"
#include "tools/python/mapped_file.h"
#include "tools/python/running.h"
#include "tools/python/strings.h"

namespace moelora::python {
namespace {

namespace nb = nanobind;

class BorrowedSource final : public Source {
 public:
  BorrowedSource(std::string name, DType dtype, int64_t elements, const void* data)
      : Source(dtype, elements),
        name_(std::move(name)),
        data_(static_cast<const std::byte*>(data)) {}

  void read(int64_t first, int64_t count, std::byte* out) const override {
    const int64_t width = dtype_bytes(dtype());
    std::memcpy(out, data_ + first * width, static_cast<size_t>(count * width));
  }
  std::string where() const override { return name_; }
  std::vector<std::string> inputs() const override { return {name_}; }

 private:
  std::string name_;
  const std::byte* data_;
};

std::optional<DType> dtype_of(nb::dlpack::dtype type) {
  struct Known {
    nb::dlpack::dtype_code code;
    uint8_t bits;
    DType dtype;
  };
  using Code = nb::dlpack::dtype_code;
  constexpr Known kKnown[] = {
      {Code::Float, 64, DType::F64},   {Code::Float, 32, DType::F32}, {Code::Float, 16, DType::F16},
      {Code::Bfloat, 16, DType::BF16}, {Code::Int, 64, DType::I64},   {Code::Int, 32, DType::I32},
      {Code::Int, 16, DType::I16},     {Code::Int, 8, DType::I8},     {Code::UInt, 64, DType::U64},
      {Code::UInt, 32, DType::U32},    {Code::UInt, 16, DType::U16},  {Code::UInt, 8, DType::U8},
      {Code::Bool, 8, DType::BOOL}};
  for (const Known& known : kKnown)
    if (type.code == static_cast<uint8_t>(known.code) && type.bits == known.bits && type.lanes == 1)
      return known.dtype;
  return std::nullopt;
}

Tensor borrowed(const std::string& name, const nb::ndarray<nb::ro>& array,
                const std::string& said) {
  const std::optional<DType> dtype = said.empty() ? dtype_of(array.dtype()) : dtype_from_name(said);
  if (!dtype) throw nb::type_error((name + ": an array of a type that no tensor has").c_str());
  Shape shape;
  std::vector<int64_t> strides;
  int64_t span = 1;  // elements from the first to the last
  for (size_t d = 0; d < array.ndim(); ++d) {
    shape.push_back(static_cast<int64_t>(array.shape(d)));
    strides.push_back(array.stride(d));
    if (shape.back() == 0)
      return Tensor::zeros(*dtype, Shape(array.shape_ptr(), array.shape_ptr() + array.ndim()));
    span += (shape.back() - 1) * strides.back();
    if (strides.back() < 0)
      throw nb::type_error((name + ": an array with negative strides").c_str());
  }
  return Tensor::strided(std::make_shared<BorrowedSource>(name, *dtype, span, array.data()), shape,
                         strides);
}

// The files as keys of Adapter's "files": a path may lead to another file by now.
using FileKey = uintptr_t;

FileKey key_of(const File* file) { return reinterpret_cast<FileKey>(file); }

std::vector<FileKey> file_keys(const Tensor& tensor) {
  std::vector<FileKey> out;
  for (const File* file : files_of(tensor)) out.push_back(key_of(file));
  return out;
}

// Where a tensor is one strided view of a file: which, the offset of the first element in bytes,
// and extents and strides (in bytes) of its axes, which reshape() makes the tensor's dims.
using View = std::tuple<FileKey, uint64_t, std::vector<int64_t>, std::vector<int64_t>>;

std::optional<View> file_view(const Tensor& tensor) {
  const std::vector<Piece>& pieces = tensor.pieces();
  if (dtype_bits(tensor.dtype()) % 8 != 0 || pieces.size() != 1 || pieces[0].count != tensor.axes())
    return std::nullopt;
  const FileRange* range = file_range(*pieces[0].source);
  if (range == nullptr) return std::nullopt;
  const int64_t width = dtype_bytes(tensor.dtype());
  std::vector<int64_t> strides = pieces[0].stride;
  for (int64_t& stride : strides) stride *= width;
  const uint64_t offset = range->begin + static_cast<uint64_t>(pieces[0].offset * width);
  return View{key_of(range->file), offset, tensor.axes(), strides};
}

using MappedBytes = nb::ndarray<nb::numpy, const uint8_t, nb::ndim<1>>;

std::optional<MappedBytes> data_of(const MappedFile& file) {
  if (file.data() == nullptr) return std::nullopt;
  return MappedBytes(file.data(), {file.size()});
}

using Bytes = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void read_into(const Tensor& tensor, Bytes out) {
  if (out.size() != tensor.bytes()) throw nb::value_error("not as large as the tensor");
  auto* const data = reinterpret_cast<std::byte*>(out.data());
  const Running running;
  const nb::gil_scoped_release released;
  tensor.read(data);
}

}  // namespace

BorrowedTensors borrowed_tensors(const nb::list& named) {
  BorrowedTensors out;
  for (const nb::handle each : named) {
    const auto entry = nb::cast<nb::tuple>(each);
    const auto name = nb::cast<std::string>(entry[0]);
    nb::ndarray<nb::ro> array;
    if (!nb::try_cast(nb::object(entry[1]), array) || array.device_type() != nb::device::cpu::value)
      throw nb::type_error((name + ": no array of the CPU that numpy or DLPack knows").c_str());
    out.tensors[name] = borrowed(name, array, nb::cast<std::string>(entry[2]));
    out.arrays.push_back(std::move(array));
  }
  return out;
}

void bind_tensor(nb::module_& module) {
  nb::class_<MappedFile>(module, "MappedFile", "A file of an adapter.")
      .def("data", data_of, nb::rv_policy::reference_internal, "None where it cannot be mapped.")
      .def("check_unchanged", &MappedFile::check_unchanged);
  nb::class_<Tensor>(module, "Tensor", "A tensor of an adapter, read when it is asked for.")
      .def_prop_ro("dtype", [](const Tensor& t) { return std::string(dtype_name(t.dtype())); })
      .def_prop_ro("shape", [](const Tensor& t) { return nb::tuple(nb::cast(t.shape())); })
      .def("file_view", file_view,
           "(file, offset, extents, strides) where it is one strided view of a file.")
      .def_prop_ro("files", file_keys, "The files that it lies in.")
      .def("read_into", read_into, nb::arg("out"), "Its elements, row-major, as bytes.");
}

}  // namespace moelora::python

// Binding of the attention of the room 'llm': check, release the GIL, call.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "guard.hpp"
#include "sgdmc/attention.hpp"

namespace py = pybind11;
using namespace sgdmc::bindings;

namespace {

// (heads, rows, width) floats of which the entries of a row lie together.
using Rows = py::array_t<float, 0>;

std::ptrdiff_t floats(const Rows& a, int axis) {
  return a.strides(axis) / static_cast<std::ptrdiff_t>(sizeof(float));
}

void check_rows(const Rows& a, std::ptrdiff_t width) {
  if (a.ndim() != 3 || a.shape(2) != width || width < 8 || width % 8 != 0 || floats(a, 2) != 1)
    throw py::value_error("attend: queries, keys and values must be (heads, rows, width) of one width, a multiple "
                          "of 8, with the entries of a row one after another");
}

// Whether the way up from every token ends.
bool leads_to_roots(const std::int64_t* parents, std::ptrdiff_t n) {
  std::vector<char> ends(n, 0);
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    std::ptrdiff_t steps = 0, at = i;
    for (; at != -1 && !ends[at]; at = parents[at])
      if (++steps > n || parents[at] < -1 || parents[at] >= n) return false;
    for (at = i; at != -1 && !ends[at]; at = parents[at]) ends[at] = 1;
  }
  return true;
}

void attend(const Rows& query, const Rows& key, const Rows& value, const Array<std::int64_t>& seen,
            const Array<std::int64_t>& parents, float scale, Array<float>& out, int n_threads) {
  const std::ptrdiff_t width = query.ndim() == 3 ? query.shape(2) : 0;
  for (const Rows* a : {&query, &key, &value}) check_rows(*a, width);
  const std::ptrdiff_t n_heads = query.shape(0), n_key_heads = key.shape(0), n = query.shape(1);
  const std::ptrdiff_t own = parents.size(), n_context = key.shape(1) - own;
  if (value.shape(0) != n_key_heads || value.shape(1) != key.shape(1) || n_key_heads < 1 || n < 1 ||
      n_heads < 1 || n_heads % n_key_heads != 0 || (own != 0 && own < n) || n_context < 0 || seen.size() != n ||
      n_context > (std::ptrdiff_t{1} << 24) || out.ndim() != 3 || out.shape(0) != n || out.shape(1) != n_heads ||
      out.shape(2) != width)
    throw py::value_error("attend: shapes do not fit");
  const std::int64_t *s = seen.data(), *p = parents.data();
  if (std::any_of(s, s + n, [&](std::int64_t k) { return k < 1 || k > n_context; }))
    throw py::value_error("attend: a query sees none or more than the context");
  if (!leads_to_roots(p, own)) throw py::value_error("attend: parents must lead to a root, -1");
  const sgdmc::Attention given{query.data(),     key.data(),       value.data(),     floats(query, 0),
                               floats(query, 1), floats(key, 0),   floats(key, 1),   floats(value, 0),
                               floats(value, 1), n_heads,          n_key_heads,      n,
                               width,            own,              s,                p,
                               scale};
  float* to = out.mutable_data();
  without_gil([&](sgdmc::Stop& stop) { sgdmc::attend(given, to, n_threads, stop); });
}

}  // namespace

void register_attention(py::module_& module) {
  using namespace py::literals;
  module.def("attend", &attend, "query"_a.noconvert(), "key"_a.noconvert(), "value"_a.noconvert(),
             "seen"_a.noconvert(), "parents"_a.noconvert(), "scale"_a, "out"_a.noconvert(), "n_threads"_a);
}

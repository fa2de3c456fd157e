/* onnx_seeds FOLDER: writes the fuzzer's seeds of ONNX files as FOLDER/seed-NAME. Together they
 * have every operator of the table, in older and newer forms (tests/unit/model/test_fuzz_corpus.c).
 */
#include "tests/lib/small_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct seed {
    const char *name;
    int opset;
    const char *text;
};

static const struct seed seeds[] = {
    {"unary", 20,
     "input x f32 2,3\noutput y\noutput z\n"
     "Abs n0 x -> a\nAcos n1 a -> b\nAcosh n2 b -> c\nAsin n3 c -> d\nAsinh n4 d -> e\nAtan n5 e "
     "-> f\n"
     "Atanh n6 f -> g\nCeil n7 g -> h\nCos n8 h -> i\nCosh n9 i -> j\nExp n10 j -> k\nFloor n11 k "
     "-> l\n"
     "Log n12 l -> m\nNeg n13 m -> n\nReciprocal n14 n -> o\nRound n15 o -> p\nSign n16 p -> q\n"
     "Sin n17 q -> r\nSinh n18 r -> s\nSqrt n19 s -> t\nTan n20 t -> u\nIsNaN n21 u -> v\n"
     "IsInf n22 u -> w\nNot n23 v -> y\nOr n24 v,w -> z\n"},
    {"activations", 20,
     "input x f32 2,3\noutput y\nconst lo f32 = -1\nconst hi f32 = 1\nconst slope f32 3\n"
     "Relu n0 x -> a\nClip n1 a,lo,hi -> b\nLeakyRelu n2 b -> c | alpha=0.2\nSigmoid n3 c -> d\n"
     "Tanh n4 d -> e\nHardSigmoid n5 e -> f | alpha=0.3\nHardSwish n6 f -> g\nElu n7 g -> h\n"
     "Selu n8 h -> i\nCelu n9 i -> j\nSoftplus n10 j -> k\nSoftsign n11 k -> l\n"
     "ThresholdedRelu n12 l -> m | alpha=0.1\nErf n13 m -> n\nMish n14 n -> o\nGelu n15 o -> p\n"
     "PRelu n16 p,slope -> q\nSoftmax n17 q -> r | axis=1\nLogSoftmax n18 r -> s | axis=0\n"
     "Hardmax n19 s -> y\n"},
    {"activations-old", 7,
     "input x f32 2,3\noutput y\nClip n0 x -> a | min=-0.5 max=0.5\nDropout n1 a -> b | ratio=0.5\n"
     "Softmax n2 b -> c | axis=1\nHardmax n3 c -> d\nLogSoftmax n4 d -> y\n"},
    {"binary", 13,
     "input x f32 2,3\ninput i i64 2,3\ninput p bool 2,3\noutput y\noutput z\noutput w\n"
     "const c f32 3\nAdd n0 x,c -> a\nSub n1 a,x -> b\nMul n2 b,c -> d\nDiv n3 d,c -> e\nPow n4 "
     "e,c -> f\n"
     "Mod n5 i,i -> m\nMin n6 f,x,c -> g\nMax n7 g,c -> h\nMean n8 h,x,c -> k\nSum n9 k,x -> l\n"
     "Equal n10 l,x -> q\nGreater n11 l,x -> r\nGreaterOrEqual n12 l,c -> s\nLess n13 l,x -> t\n"
     "LessOrEqual n14 l,x -> u\nAnd n15 q,r -> v\nOr n16 s,t -> o\nXor n17 u,v -> e2\nAnd n18 e2,o "
     "-> f2\n"
     "Where n19 f2,l,c -> y\nAnd n20 f2,p -> z\nCast n21 m -> w | to=1\n"},
    {"reduce", 13,
     "input x f32 2,3,4\noutput y\noutput z\noutput s\nconst axes i64 1 = 1\n"
     "ReduceSum n0 x,axes -> a | keepdims=1\nReduceMean n1 x -> b | axes=[1] keepdims=1\n"
     "ReduceMax n2 x -> c | axes=[-1]\nReduceMin n3 c -> d | axes=[0,2] keepdims=0\n"
     "ReduceProd n4 x -> e | axes=[1]\nReduceL1 n5 e -> f | axes=[0]\nReduceL2 n6 x -> g | "
     "axes=[2]\n"
     "ReduceLogSum n7 g -> h\nReduceLogSumExp n8 x -> i | axes=[0]\nReduceSumSquare n9 i -> j\n"
     "Sum n10 a,b,j -> y\nArgMax n11 x -> k | axis=2\nArgMin n12 x -> l | axis=1 keepdims=0\n"
     "Cast n13 k -> k2 | to=1\nAdd n14 k2,h -> z\nCast n15 l -> l2 | to=6\nCast n16 l2 -> s | "
     "to=11\n"},
    {"reduce-18", 18,
     "input x f32 2,3,4\noutput y\nconst axes i64 2 = 0,-1\nReduceMax n0 x,axes -> a\n"
     "ReduceMean n1 a -> b | noop_with_empty_axes=1\nReduceLogSumExp n2 b,axes -> y | "
     "keepdims=0\n"},
    {"convolutions", 13,
     "input x f32 1,2,7,7\ninput v f32 1,2,9\ninput q f32 1,1,4,4,4\noutput y\noutput z\noutput w\n"
     "const a f32 4,2,3,3\nconst b f32 4\nconst d f32 4,1,3,3\nconst t f32 4,2,2,2\nconst e f32 "
     "2,2,3\n"
     "const f f32 1,1,2,2,2\nconst n f32 4 = 1,2,3,4\n"
     "Conv c0 x,a,b -> c0 | pads=[1,1,1,1]\nBatchNormalization bn c0,b,b,b,n -> c1\nRelu r c1 -> "
     "c2\n"
     "Conv c1 c2,d -> c3 | group=4 dilations=[2,2] strides=[1,1] auto_pad=SAME_UPPER\nAdd s c3,c2 "
     "-> c4\n"
     "ConvTranspose c2 c4,t -> y | strides=[2,2] output_padding=[1,1]\n"
     "Conv c3 v,e -> z | strides=[2] pads=[1,1]\nConv c4 q,f -> w\n"},
    {"pools", 11,
     "input x f32 1,2,7,7\noutput y\noutput i\noutput a\noutput l\noutput g\noutput u\n"
     "MaxPool n0 x -> y,i | kernel_shape=[3,3] strides=[2,2] ceil_mode=1\n"
     "AveragePool n1 x -> a | kernel_shape=[2,2] pads=[1,0,0,1] count_include_pad=1\n"
     "LpPool n2 x -> l | kernel_shape=[3,2] p=3\nGlobalMaxPool n3 x -> b\nGlobalAveragePool n4 x "
     "-> c\n"
     "GlobalLpPool n5 x -> d\nSum n6 b,c,d -> g\n"
     "MaxPool n7 x -> e,f | kernel_shape=[2,2] strides=[2,2]\n"
     "MaxUnpool n8 e,f -> u | kernel_shape=[2,2] strides=[2,2]\n"},
    {"norms", 18,
     "input x f32 2,4,3,3\noutput y\noutput w\noutput z\nconst c f32 4\nconst d f32 3\nconst e f32 "
     "2\n"
     "InstanceNormalization n0 x,c,c -> a\nLRN n1 a -> b | size=3\nLpNormalization n2 b -> h | "
     "axis=1 p=1\n"
     "MeanVarianceNormalization n3 h -> y\nLayerNormalization n4 x,d -> w | axis=-1\n"
     "GroupNormalization n5 x,e,e -> z | num_groups=2\n"},
    {"matrices", 13,
     "input x f32 2,3\ninput u u8 2,3\noutput y\noutput z\noutput q\nconst w f32 3,4\nconst c f32 "
     "4\n"
     "const k f32 5,3,2\nconst a u8 3,2\nconst zero u8 = 3\nconst s f32 = 0.1\n"
     "Gemm n0 x,w,c -> y | alpha=0.5 beta=2.0\nMatMul n1 k,x -> z\n"
     "MatMulInteger n2 u,a,zero,zero -> m\nCast n3 m -> m2 | to=1\n"
     "QLinearMatMul n4 u,s,zero,a,s,zero,s,zero -> p\nCast n5 p -> p2 | to=1\nAdd n6 m2,p2 -> q\n"},
    {"quantised", 13,
     "input x f32 1,2,5,5\noutput y\noutput z\nconst w u8 3,2,3,3\nconst s f32 = 0.05\nconst t f32 "
     "3\n"
     "const o u8 = 7\nconst b i32 3\n"
     "QuantizeLinear n0 x,s,o -> q\nDequantizeLinear n1 q,s,o -> d\n"
     "ConvInteger n2 q,w,o,o -> i | pads=[1,1,1,1]\nCast n3 i -> y | to=1\n"
     "DynamicQuantizeLinear n4 d -> v,vs,vo\nQLinearConv n5 v,vs,vo,w,s,o,s,o,b -> p\n"
     "DequantizeLinear n6 p,s,o -> z\n"},
    {"shapes", 13,
     "input x f32 2,3,4\noutput y\noutput e\noutput r\noutput f\nconst a i64 1 = 0\nconst m i64 2 "
     "= -1,4\n"
     "const big i64 4 = 2,2,3,4\nconst rep i64 3 = 1,2,1\nconst lim i64 = 9\nconst st i64 = 2\n"
     "const z i64 = 0\n"
     "Reshape n0 x,m -> b\nFlatten n1 x -> c | axis=2\nUnsqueeze n2 x,a -> d\nSqueeze n3 d,a -> g\n"
     "Identity n4 g -> h\nShape n5 h -> s\nSize n6 x -> n\nConstantOfShape n7 s -> k\nAdd n8 k,x "
     "-> y\n"
     "Expand n9 x,big -> e\nTile n10 x,rep -> t\nTranspose n11 t -> r | perm=[2,0,1]\n"
     "Range n12 z,lim,st -> q\nCast n13 q -> q2 | to=1\nMul n14 b,b -> i\nReduceSum n15 q2 -> j\n"
     "Add n16 i,j -> f\nDropout n17 c -> l\nEyeLike n18 c -> eye\nAdd n19 l,eye -> oo\noutput oo\n"
     "const one i64 = 1\nAdd n20 n,one -> nn\noutput nn\n"},
    {"shapes-old", 9,
     "input x f32 2,1,4\noutput y\noutput z\nSqueeze n0 x -> a | axes=[1]\nUnsqueeze n1 a -> b | "
     "axes=[0,2]\n"
     "Slice n2 b -> c | axes=[3] starts=[1] ends=[-1]\nPad n3 c -> d | pads=[0,0,0,1,0,0,0,1] "
     "mode=edge\n"
     "Split n4 d -> y,z | axis=3 split=[1,3]\n"},
    {"moves", 13,
     "input x f32 1,4,6,6\noutput y\noutput p\noutput q\noutput s\nconst st i64 2 = 1,-1\n"
     "const en i64 2 = 5,-7\nconst ax i64 2 = 2,3\nconst sp i64 2 = 1,-2\nconst parts i64 2 = 1,3\n"
     "const pads i64 8 = 0,0,1,1,0,0,1,-1\nconst v f32 = 2\n"
     "Slice n0 x,st,en,ax,sp -> a\nSplit n1 x,parts -> b,c | axis=1\nConcat n2 c,b,x -> d | "
     "axis=1\n"
     "Pad n3 d,pads,v -> y | mode=constant\nDepthToSpace n4 x -> e | blocksize=2 mode=CRD\n"
     "SpaceToDepth n5 e -> p | blocksize=2\nRelu n6 a -> q\nconst rp i64 8 = 0,0,2,2,0,0,2,2\n"
     "Pad n7 x,rp -> s | mode=reflect\n"},
    {"split-18", 18,
     "input x f32 2,5\noutput y\noutput z\noutput w\nSplit n0 x -> y,z,w | axis=1 num_outputs=3\n"},
    {"index", 16,
     "input x f32 3,4\ninput i i64 2,4\noutput a\noutput b\noutput c\noutput d\noutput e\noutput "
     "f\n"
     "const k i64 2 = 2,0\nconst nd i64 2,1 = 0,-1\nconst up f32 2,4\nconst three i64 1 = 3\n"
     "const depth i64 = 4\nconst values f32 2 = 0,1\nconst axis i64 = 1\n"
     "Gather n0 x,k -> a | axis=1\nGatherElements n1 x,i -> b\nGatherND n2 x,nd -> c\n"
     "ScatterElements n3 x,i,up -> d | axis=0 reduction=add\nScatterND n4 x,nd,up -> e | "
     "reduction=mul\n"
     "TopK n5 x,three -> f,g | axis=1 largest=0\nOneHot n6 i,depth,values -> h | axis=-1\n"
     "CumSum n7 h,axis -> j | exclusive=1 reverse=1\noutput g\noutput j\n"},
    {"index-old", 9,
     "input x f32 3,4\noutput a\noutput v\noutput i\nconst k i64 1,4 = 2,0,1,2\nconst u f32 1,4\n"
     "Scatter n0 x,k,u -> a\nTopK n1 x -> v,i | k=2 axis=0\n"},
    {"found", 13,
     "input b f32 1,6,4\ninput s f32 1,2,6\noutput y\noutput z\noutput o\nconst most i64 1 = 3\n"
     "const iou f32 1 = 0.5\nconst score f32 1 = 0.01\nconst zero i64 1 = 0\nconst one i64 = 1\n"
     "const line i64 1 = -1\n"
     "NonMaxSuppression n0 b,s,most,iou,score -> y\nReshape n1 s,line -> l\nNonZero n2 l -> f\n"
     "Squeeze n3 f,zero -> p\nGather n4 l,p -> z\nShape n5 f -> sh\nGather n6 sh,one -> n\n"
     "Unsqueeze n7 n,zero -> n1\nConstantOfShape n8 n1 -> o\n"},
    {"resize", 13,
     "input x f32 1,2,4,4\noutput y\noutput z\noutput w\nconst s f32 4 = 1,1,2,1.5\nconst n i64 4 "
     "= 1,2,3,7\n"
     "Resize n0 x,-,s -> y | mode=linear coordinate_transformation_mode=align_corners\n"
     "Resize n1 x,-,-,n -> z | mode=nearest nearest_mode=floor\n"
     "Resize n2 x,-,s -> w | mode=cubic cubic_coeff_a=-0.5\n"},
    {"resize-10", 10,
     "input x f32 1,2,4,4\noutput y\nconst s f32 4 = 1,1,2,2\nResize n0 x,s -> y | mode=nearest\n"},
    {"upsample", 9,
     "input x f32 1,2,4,4\noutput y\nconst s f32 4 = 1,1,2,3\nUpsample n0 x,s -> y | "
     "mode=linear\n"},
    {"sample", 16,
     "input x f32 1,2,4,4\ninput g f32 1,3,3,2\ninput r f32 2,4\noutput y\noutput z\n"
     "const b i64 2 = 0,0\n"
     "GridSample n0 x,g -> y | align_corners=1 mode=bicubic padding_mode=reflection\n"
     "RoiAlign n1 x,r,b -> z | output_height=2 output_width=2 sampling_ratio=2\n"},
    {"constants", 13,
     "input x f32 2,2\noutput y\noutput k\nnode k i64 3 = 1,2,3\nnode c f32 2,2\nAdd n0 x,c -> "
     "y\n"},
    {"bounds", 13,
     "input x f32 <=5,3\noutput y\nconst w f32 3,2\nconst b f32 2\nGemm n0 x,w,b -> g\nRelu n1 g "
     "-> y\n"},
};

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: onnx_seeds FOLDER\n");
        return 2;
    }
    for (size_t i = 0; i < sizeof(seeds) / sizeof(seeds[0]); i++) {
        char path[1024];
        snprintf(path, sizeof(path), "%s/seed-%s", argv[1], seeds[i].name);
        small_model_write(path, seeds[i].opset, seeds[i].text);
    }
    return 0;
}
